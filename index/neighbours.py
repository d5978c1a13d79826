"""Session neighbours: which items come in past sessions that share items with this one.

VMIS-kNN (Kersbergen et al., Serenade, SIGMOD 2022) with the decays of STAN (Garg et al., SIGIR
2019): by position in the session, by age of the neighbour, by distance from the shared item.
Knows clicks by row only. Shapes: E clicks held, N items, H items of the session, newest first.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.click_memory import Held
from index.compiled import compiled

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

MAX_OCCURRENCES: Final = 1_500  # newest clicks of each item that are looked at
MAX_NEIGHBOURS: Final = 500
_POSITION_DECAY: Final = 0.3  # by item of the session, and again by the newest one shared
_AGE_DECAY: Final = 2.5  # over all clicks held
_LEAST_VALUE: Final = 1e-30  # above what float32 rounds to zero
_DISTANCE_DECAY: Final = 0.3  # by click of the neighbour, from the one that is shared


class Scratch(NamedTuple):
    """Work space, all zero between calls; one for each thread."""

    similarity_E: Float32
    nearest_E: Int32
    shared_E: Int32
    counted_E: Int32
    touched_E: Int64
    seen_N: Int32


class Scores(NamedTuple):
    """Scores by row with the rows that have one; `clear` empties it."""

    score_N: Float32
    touched_N: Int32


def new_scratch(capacity: int, num_items: int) -> Scratch:
    """Return work space for a memory."""
    return Scratch(
        similarity_E=np.zeros(capacity, np.float32),
        nearest_E=np.zeros(capacity, np.int32),
        shared_E=np.zeros(capacity, np.int32),
        counted_E=np.zeros(capacity, np.int32),
        touched_E=np.zeros(capacity, np.int64),
        seen_N=np.zeros(num_items, np.int32),
    )


def new_scores(num_items: int) -> Scores:
    """Return no scores."""
    return Scores(np.zeros(num_items, np.float32), np.zeros(num_items, np.int32))


@compiled
def clear(scores: Scores, num: int) -> None:
    """Empty `num` scores."""
    for i in range(num):
        scores.score_N[scores.touched_N[i]] = 0.0


@compiled
def add(scores: Scores, num: int, row: int, value: float) -> int:
    """Add to a row's score; returns how many rows have one, `num` before.

    A value that rounds to zero still marks the row, or it would be counted at every call.
    """
    if scores.score_N[row] == 0.0:
        scores.touched_N[num] = row
        num += 1
    scores.score_N[row] += max(value, _LEAST_VALUE)
    return num


@compiled
def neighbour_scores(held: Held, items_H: Int32, scratch: Scratch, scores: Scores) -> int:
    """Score what the nearest sessions contain; return how many rows have a score."""
    num_sessions = _sessions_that_share(held, items_H, scratch)
    chosen = _nearest(held, scratch, num_sessions)
    num = 0
    for i in range(len(chosen)):
        first = scratch.touched_E[chosen[i]]
        num = _add_session(held, first, i + 1, num, scratch, scores)
    for i in range(num):
        scratch.seen_N[scores.touched_N[i]] = 0
    for i in range(num_sessions):
        place = scratch.touched_E[i] % len(held.links.item_E)
        scratch.similarity_E[place] = 0.0
        scratch.counted_E[place] = 0
    return num


@compiled
def _sessions_that_share(held: Held, items_H: Int32, scratch: Scratch) -> int:
    """Weigh every session that holds one of the items; return how many there are.

    A session is known by its first click; one whose first click is gone is passed over.
    """
    links = held.links
    capacity = len(links.item_E)
    oldest = max(0, held.num_added - capacity)
    num = 0
    for h in range(len(items_H)):
        weight = np.float32(np.exp(-_POSITION_DECAY * h))
        number, looked_at = held.facts.newest_N[items_H[h]], 0
        while number >= oldest and looked_at < MAX_OCCURRENCES:
            looked_at += 1
            place = number % capacity
            first = number - links.to_first_E[place]
            if first >= oldest:
                start = first % capacity
                if scratch.counted_E[start] == 0:
                    scratch.touched_E[num] = first
                    num += 1
                    scratch.nearest_E[start] = h
                    scratch.shared_E[start] = links.position_E[place]
                if scratch.counted_E[start] != h + 1:
                    scratch.counted_E[start] = h + 1
                    scratch.similarity_E[start] += weight
            if links.to_same_item_E[place] == 0:
                break
            number -= links.to_same_item_E[place]
    return num


@compiled
def _nearest(held: Held, scratch: Scratch, num_sessions: int) -> Int64:
    """Finish the weights and return the places of the best among the touched."""
    capacity = len(held.links.item_E)
    span = min(held.num_added, capacity)
    key = np.empty(num_sessions, np.float32)
    for i in range(num_sessions):
        first = scratch.touched_E[i]
        start = first % capacity
        age = np.exp(-_AGE_DECAY * (held.num_added - first) / span)
        scratch.similarity_E[start] *= age / np.sqrt(held.links.length_E[start])
        key[i] = -scratch.similarity_E[start]
    if num_sessions <= MAX_NEIGHBOURS:
        return np.arange(num_sessions)
    return np.argpartition(key, MAX_NEIGHBOURS)[:MAX_NEIGHBOURS]


@compiled
def _add_session(
    held: Held, first: int, mark: int, num: int, scratch: Scratch, scores: Scores
) -> int:
    """Add each item of a session once; rare items weigh more. Returns how many have a score."""
    links = held.links
    capacity = len(links.item_E)
    start = first % capacity
    weight = scratch.similarity_E[start]
    weight *= np.exp(-_POSITION_DECAY * scratch.nearest_E[start])
    number = first
    while True:
        place = number % capacity
        row = links.item_E[place]
        if scratch.seen_N[row] != mark:
            scratch.seen_N[row] = mark
            rarity = np.log(1.0 + held.num_added / (1.0 + held.facts.long_N[row]))
            away = abs(links.position_E[place] - scratch.shared_E[start])
            value = weight * (1.0 + rarity) * np.exp(-_DISTANCE_DECAY * away)
            num = add(scores, num, row, value)
        if links.to_next_E[place] == 0:
            return num
        number += links.to_next_E[place]
