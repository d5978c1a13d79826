"""The simulated items: who is alive, how popular, what follows what; does not know users.

Shapes: L live slots, T topics, S successors, M interests, B clicks of a block, N any count.
A slot houses one item at a time; the slots of a topic are neighbours, so that one running sum
of the weights serves every topic and the whole world.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.simulator_settings import SimulatorSettings

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

RAMP = 0.02
"""Share of its life in which a new item rises to its full weight."""


def distinct_others(
    rng: np.random.Generator, origin_N: Ints, size_N: Ints | int, count: int
) -> Ints:
    """Draw `count` distinct numbers modulo `size`, none of them `origin`: N by count."""
    size_N1 = np.asarray(size_N).reshape(-1, 1)
    width_N1 = (size_N1 - 1) // count
    offset_NC = (rng.random((len(origin_N), count)) * width_N1).astype(np.int64)
    offset_NC += 1 + np.arange(count) * width_N1
    return np.asarray((origin_N[:, None] + offset_NC) % size_N1, dtype=np.int64)


def halving(count: int) -> Floats:
    """Return odds that halve from one to the next and sum to one."""
    odds = 0.5 ** np.arange(count, dtype=np.float64)
    return np.asarray(odds / odds.sum())


@dataclass(frozen=True)
class Askers:
    """Sessions about to click: current slot (-1: none) and topics of interest."""

    slot_B: Ints
    topics_BM: Ints


class ItemWorld:
    """Live items with exact next-click probabilities, constant between two refreshes."""

    def __init__(self, settings: SimulatorSettings, rng: np.random.Generator) -> None:
        self._settings = settings
        self._rng = rng
        num_slots, num_topics = settings.items, settings.topics
        self._churns = settings.new_items_per_1000_clicks > 0
        self.bounds_T1 = np.arange(num_topics + 1, dtype=np.int64) * num_slots // num_topics
        self.topic_L = np.repeat(np.arange(num_topics), np.diff(self.bounds_T1))
        self.item_L = np.arange(num_slots, dtype=np.int64)
        self.num_items_seen = num_slots
        self.successors_LS = np.empty((num_slots, settings.successors), dtype=np.int64)
        self.successor_odds_S = halving(settings.successors)
        self.interest_odds_M = halving(settings.interests)
        self._peak_L, self._born_L, self._life_L = np.empty((3, num_slots))
        self._settle(self.item_L, 0.0)
        if self._churns:  # The first items are caught at all ages.
            self._born_L -= self._life_L * rng.random(num_slots)
        self._weigh(0)

    def refresh(self, clicks: int) -> Ints:
        """Let items rise, fade and be replaced; return the slots that got a new item."""
        replaced_R = np.flatnonzero(clicks - self._born_L >= self._life_L)
        count = len(replaced_R)
        self.item_L[replaced_R] = self.num_items_seen + np.arange(count)
        self.num_items_seen += count
        self._settle(replaced_R, float(clicks))
        self._weigh(clicks)
        return replaced_R

    def shares(self, slot_B: Ints) -> tuple[Floats, Floats]:
        """Return the shares of successor and interest clicks; the rest is global popularity.

        Without a current item the share of the successors is divided among the other two.
        """
        follow, interest = self._settings.successor_share, self._settings.interest_share
        alone = interest / (1.0 - follow) if follow < 1.0 else 0.0
        has_item_B = slot_B >= 0
        return np.where(has_item_B, follow, 0.0), np.where(has_item_B, interest, alone)

    def sample(self, askers: Askers) -> Ints:
        """Draw the slot of the next click of each asker."""
        size = len(askers.slot_B)
        choice_B, draw_B, column_B = self._rng.random((3, size))
        follow_B, interest_B = self.shares(askers.slot_B)
        pick_B = np.searchsorted(np.cumsum(self.interest_odds_M)[:-1], column_B, "right")
        topic_B = askers.topics_BM[np.arange(size), pick_B]
        popular_B = self._popular(topic_B, choice_B < follow_B + interest_B, draw_B)
        pick_B = np.searchsorted(np.cumsum(self.successor_odds_S)[:-1], draw_B, "right")
        follower_B = self.successors_LS[askers.slot_B, pick_B]
        return np.where(choice_B < follow_B, follower_B, popular_B)

    def _popular(self, topic_B: Ints, in_topic_B: NDArray[np.bool_], draw_B: Floats) -> Ints:
        """Draw by weight from the topic, or from the whole world."""
        first_B = np.where(in_topic_B, self.bounds_T1[topic_B], 0)
        end_B = np.where(in_topic_B, self.bounds_T1[topic_B + 1], len(self.weight_L))
        low_B, high_B = self._sum_L1[first_B], self._sum_L1[end_B]
        found_B = np.searchsorted(self._sum_L1, low_B + draw_B * (high_B - low_B), "right") - 1
        # Rounding of the running sum may step over the border of a topic.
        drawn_B: Ints = np.clip(found_B, first_B, end_B - 1)
        return drawn_B

    def _settle(self, slots_R: Ints, clicks: float) -> None:
        """Give slots a new item: popularity, length of life, successors within the topic."""
        rng, settings, count = self._rng, self._settings, len(slots_R)
        rank_R = 1.0 + rng.random(count) * (settings.items - 1)
        self._peak_L[slots_R] = rank_R**-settings.popularity_exponent
        self._born_L[slots_R] = clicks
        if self._churns:
            mean = 1_000.0 * settings.items / settings.new_items_per_1000_clicks
            self._life_L[slots_R] = mean * (0.5 + rng.random(count))
        else:
            self._life_L[slots_R] = np.inf
        topic_R = self.topic_L[slots_R]
        first_R = self.bounds_T1[topic_R]
        size_R = self.bounds_T1[topic_R + 1] - first_R
        others_RS = distinct_others(rng, slots_R - first_R, size_R, settings.successors)
        self.successors_LS[slots_R] = first_R[:, None] + others_RS

    def _weigh(self, clicks: int) -> None:
        """Set the weights: full after a short rise, then fading evenly to nothing."""
        age_L = (clicks - self._born_L) / self._life_L
        self.weight_L = self._peak_L * np.minimum(1.0, 0.1 + age_L / RAMP) * (1.0 - age_L)
        self._sum_L1 = np.concatenate(([0.0], np.cumsum(self.weight_L)))
        self.total = float(self._sum_L1[-1])
        self.topic_total_T = np.diff(self._sum_L1[self.bounds_T1])
