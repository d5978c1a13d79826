"""Session neighbours: which items come in past sessions that share items with this one.

VMIS-kNN (Kersbergen et al., Serenade, SIGMOD 2022) with the decays of STAN (Garg et al., SIGIR
2019): by position in the session, by age of the neighbour, by distance from the shared item.
Knows clicks by row only. Shapes: E clicks held, N items, H items of the session, newest first.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.click_memory import Held, latest_clicks, place_of
from index.compiled import compiled
from index.select import largest

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

MAX_OCCURRENCES: Final = 200  # newest clicks of each item that are looked at
MAX_NEIGHBOURS: Final = 100
MAX_ITEMS: Final = 4  # newest items of the session that neighbours may share
_POSITION_DECAY: Final = 0.3  # by item of the session, and again by the newest one shared
_AGE_DECAY: Final = 2.5  # over all clicks held
_LEAST_VALUE: Final = np.float32(1e-30)  # what rounds to zero would be counted at every call
_DISTANCE_DECAY: Final = 0.3  # by click of the neighbour, from the one that is shared
_BY_DISTANCE: Final = np.exp(-_DISTANCE_DECAY * np.arange(16)).astype(np.float32)  # then nothing
_BY_POSITION: Final = np.exp(-_POSITION_DECAY * np.arange(256)).astype(np.float32)
_AGES: Final = 256
_BY_AGE: Final = np.exp(-_AGE_DECAY * np.arange(_AGES + 2) / _AGES).astype(np.float32)


class Scratch(NamedTuple):
    """Work space, all zero between calls; one for each thread.

    A session's numbers stand side by side at its first click: one read of memory brings all.
    """

    similarity_E: Float32
    nearest_E: Int32
    shared_E: Int32
    counted_E: Int32
    touched_E: Int64


class Cursors(NamedTuple):
    """Where a walk through sessions is, and how much each weighs."""

    number_S: Int64
    weight_S: Float32


class Scores(NamedTuple):
    """Scores by row with the rows that have one, and a place to spare; `clear` empties it."""

    score_N: Float32
    touched_N: Int32


def new_scratch(capacity: int) -> Scratch:
    """Return work space for a memory."""
    sessions_EX = np.zeros((capacity, 4), np.int32)
    return Scratch(
        similarity_E=sessions_EX[:, 0].view(np.float32),
        nearest_E=sessions_EX[:, 1],
        shared_E=sessions_EX[:, 2],
        counted_E=sessions_EX[:, 3],
        touched_E=np.zeros(capacity + 1, np.int64),
    )


def new_scores(num_items: int) -> Scores:
    """Return no scores."""
    return Scores(np.zeros(num_items, np.float32), np.zeros(num_items + 1, np.int32))


@compiled
def clear(scores: Scores, num: int) -> None:
    """Empty `num` scores."""
    for i in range(num):
        scores.score_N[scores.touched_N[i]] = 0.0


@compiled
def add(scores: Scores, num: int, row: int, value: float) -> int:
    """Add to a row's score, nothing for 0; returns how many rows have one, `num` before.

    There is no branch in it: one that waits for memory and is guessed wrong costs more than the
    rest.
    """
    score = scores.score_N[row]
    scores.touched_N[num] = row
    scores.score_N[row] = score + value
    return num + int((score == 0.0) & (value > 0.0))


@compiled
def neighbour_scores(held: Held, items_H: Int32, scratch: Scratch, scores: Scores) -> int:
    """Score what the nearest sessions contain; return how many rows have a score.

    Rare items weigh more.
    """
    num_sessions = _sessions_that_share(held, items_H, scratch)
    chosen = _nearest(held, scratch, num_sessions)
    num = _add_sessions(held, chosen, scratch, scores)
    for i in range(num):
        row = scores.touched_N[i]
        scores.score_N[row] *= 1.0 + np.log(1.0 + held.num_added / (1.0 + held.facts.long_N[row]))
    for i in range(num_sessions):
        place = place_of(held, scratch.touched_E[i])
        scratch.similarity_E[place] = 0.0
        scratch.counted_E[place] = 0
    return num


@compiled
def _sessions_that_share(held: Held, items_H: Int32, scratch: Scratch) -> int:
    """Weigh every session that holds one of the items; return how many there are.

    A session is known by its first click; one whose first click is gone is passed over.
    """
    links = held.links
    oldest = max(0, held.num_added - len(links.item_E))
    num = 0
    for h in range(min(len(items_H), MAX_ITEMS)):
        weight = _BY_POSITION[h]
        for number in latest_clicks(held, items_H[h], MAX_OCCURRENCES):
            to_first = links.to_first_E[place_of(held, number)]
            first = number - to_first
            if first >= oldest:
                start = place_of(held, first)
                # No branches: see `add`.
                counted = scratch.counted_E[start]
                scratch.touched_E[num] = first
                num += int(counted == 0)
                scratch.nearest_E[start] = h if counted == 0 else scratch.nearest_E[start]
                scratch.shared_E[start] = to_first if counted == 0 else scratch.shared_E[start]
                scratch.similarity_E[start] += weight if counted != h + 1 else np.float32(0.0)
                scratch.counted_E[start] = h + 1
    return num


@compiled
def _nearest(held: Held, scratch: Scratch, num_sessions: int) -> Int32:
    """Finish the weights and return the places of the best among the touched."""
    span = max(1, min(held.num_added, len(held.links.item_E)))
    per_click = np.float32(_AGES / span)
    similarity_S = np.empty(num_sessions, np.float32)
    for i in range(num_sessions):
        first = scratch.touched_E[i]
        start = place_of(held, first)
        decay = _decay((held.num_added - first) * per_click)
        length = np.float32(held.links.length_E[start])
        scratch.similarity_E[start] *= decay / np.sqrt(length)
        similarity_S[i] = scratch.similarity_E[start]
    return largest(similarity_S, MAX_NEIGHBOURS)


@compiled
def _decay(age: float) -> float:
    """Return exp(-decay * age / ages) from a table, between two of its values by a line."""
    below = int(age)
    part = np.float32(age - below)
    return float(_BY_AGE[below] + part * (_BY_AGE[below + 1] - _BY_AGE[below]))


@compiled
def _add_sessions(held: Held, chosen_S: Int32, scratch: Scratch, scores: Scores) -> int:
    """Add what sessions contain around the click that is shared; return how many have a score.

    Each item of a session counts once, where it came first.
    """
    size, num_before = len(chosen_S), 0
    onward = Cursors(np.empty(size, np.int64), np.empty(size, np.float32))
    back = Cursors(np.empty(size, np.int64), np.empty(size, np.float32))
    for s in range(size):
        first = scratch.touched_E[chosen_S[s]]
        start = place_of(held, first)
        shared = first + scratch.shared_E[start]
        weight = scratch.similarity_E[start] * _BY_POSITION[scratch.nearest_E[start]]
        onward.number_S[s], onward.weight_S[s] = shared, weight
        to_before = held.links.to_before_E[place_of(held, shared)]
        if to_before > 0:
            back.number_S[num_before], back.weight_S[num_before] = shared - to_before, weight
            num_before += 1
    num = _walk(held, onward, size, 1, 0, scores)
    return _walk(held, back, num_before, -1, num, scores)


@compiled
def _walk(held: Held, cursors: Cursors, size: int, direction: int, num: int, scores: Scores) -> int:
    """Go through sessions side by side, onward (1) or back (-1), and add what is come upon.

    Returns how many rows have a score, `num` before. Onward begins with the shared click itself,
    back with the one before it.
    """
    links = held.links
    to_E = links.to_next_E if direction > 0 else links.to_before_E
    away = 0 if direction > 0 else 1
    while size > 0 and away < len(_BY_DISTANCE):
        kept = 0
        for s in range(size):
            number, weight = cursors.number_S[s], cursors.weight_S[s]
            place = place_of(held, number)
            value = max(weight * _BY_DISTANCE[away], _LEAST_VALUE)
            once = np.float32(1 - links.again_E[place])
            num = add(scores, num, links.item_E[place], once * value)
            cursors.number_S[kept] = number + direction * to_E[place]
            cursors.weight_S[kept] = weight
            kept += int(to_E[place] > 0)
        size = kept
        away += 1
    return num
