"""From sessions to candidates: every channel brings its best, each is described once.

Compiled; knows rows only. Shapes: B sessions, R ring (newest first), H distinct items of it, C
candidates, N items.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.click_memory import Held
from index.compiled import compiled
from index.features import (
    NEAR,
    NEIGHBOURS,
    NOWHERE,
    POPULAR,
    RULES,
    SESSION,
    Also,
    Found,
    Near,
    Order,
    Places,
    Session,
    Work,
    describe,
)
from index.neighbours import Scores, clear, neighbour_scores
from index.rules import rule_scores
from index.select import largest

Int32 = NDArray[np.int32]

_FROM_NEIGHBOURS: Final = 40
_FROM_RULES: Final = 12


@compiled
def describe_all(
    held: Held, rings_BR: Int32, near: Near, also: Also, work: Work, found: Found
) -> None:
    """Fill `found` for every session that holds a row."""
    width = found.codes_BC.shape[1]
    order = Order(np.empty(width, np.int32), np.empty(width, np.int32))
    for b in range(len(rings_BR)):
        items_H = _enter_ring(rings_BR[b], work.places)
        if len(items_H) > 0:
            session = _score(held, b, also.on, rings_BR[b], items_H, work)
            order.near_C[:] = NOWHERE
            order.neighbours_C[:] = NOWHERE
            _collect(session, near, also, work, order, found)
            describe(held, session, near, work, order, found)
            _leave(session, work, found)


@compiled
def _enter_ring(ring_R: Int32, places: Places) -> Int32:
    """Note where each row of the ring is; return the distinct ones, newest first."""
    items_H = np.empty(len(ring_R), np.int32)
    num = 0
    for ago in range(len(ring_R)):
        row = ring_R[ago]
        if row >= 0:
            if places.times_N[row] == 0:
                places.ago_N[row] = ago
                items_H[num] = row
                num += 1
            places.times_N[row] += 1
    return items_H[:num]


@compiled
def _score(held: Held, number: int, on: int, ring_R: Int32, items_H: Int32, work: Work) -> Session:
    """Ask the channels that are on; the others score nothing."""
    channels = work.channels
    length, previous, seen = 0, -1, 0
    for ago in range(len(ring_R)):
        length += ring_R[ago] != -1
        if ring_R[ago] >= 0:
            if seen == 1:
                previous = ring_R[ago]
            seen += 1
    counts, totals = np.zeros(4, np.int64), np.zeros(4, np.float32)
    if on & NEIGHBOURS:
        counts[0] = neighbour_scores(held, items_H, work.scratch, channels.neighbours)
    if on & RULES:
        counts[1], counts[2], counts[3] = rule_scores(
            held, items_H[0], previous, channels.after, channels.next_, channels.pair
        )
    totals[0] = _total(channels.neighbours, counts[0])
    totals[1] = _total(channels.after, counts[1])
    totals[2] = _total(channels.next_, counts[2])
    totals[3] = _total(channels.pair, counts[3])
    return Session(number, on, items_H, length, previous, counts, totals)


@compiled
def _total(scores: Scores, num: int) -> float:
    total = 0.0
    for i in range(num):
        total += scores.score_N[scores.touched_N[i]]
    return total


@compiled
def _best(scores: Scores, num: int, k: int) -> Int32:
    """Return the rows with the highest scores, best first."""
    value_M = np.empty(num, np.float32)
    for i in range(num):
        value_M[i] = scores.score_N[scores.touched_N[i]]
    chosen_K = largest(value_M, k)
    return scores.touched_N[chosen_K[np.argsort(-value_M[chosen_K])]]


@compiled
def _collect(
    session: Session, near: Near, also: Also, work: Work, order: Order, found: Found
) -> None:
    """Let every channel bring its best; what several bring is one candidate."""
    b, channels, keep = session.number, work.channels, also.keep_session
    if keep:
        _add_all(b, session.items_H, SESSION, keep, work.places, found)
    if session.on & NEAR:
        _collect_near(b, near, keep, work.places, order, found)
    rows = _best(channels.neighbours, session.counts[0], _FROM_NEIGHBOURS)
    for k in range(len(rows)):
        at = _add(b, rows[k], NEIGHBOURS, keep, work.places, found)
        if at >= 0:
            order.neighbours_C[at] = k
    rows = _best(channels.after, session.counts[1], _FROM_RULES)
    _add_all(b, rows, RULES, keep, work.places, found)
    _add_all(b, also.popular_P, POPULAR, keep, work.places, found)


@compiled
def _collect_near(
    b: int, near: Near, keep_session: bool, places: Places, order: Order, found: Found
) -> None:
    for m in range(near.codes_BM.shape[1]):
        code = near.codes_BM[b, m]
        at = -1 if code == -1 else _add(b, code, NEAR, keep_session, places, found)
        if at >= 0:
            order.near_C[at] = m


@compiled
def _add_all(
    b: int, rows: Int32, source: int, keep_session: bool, places: Places, found: Found
) -> None:
    for row in rows:
        _add(b, row, source, keep_session, places, found)


@compiled
def _add(b: int, code: int, source: int, keep_session: bool, places: Places, found: Found) -> int:
    """Make a code a candidate, or note one more source of it; return its place, -1 for none."""
    if code >= 0:
        if places.candidate_N[code] >= 0:
            found.sources_BC[b, places.candidate_N[code]] |= source
            return int(places.candidate_N[code])
        if not keep_session and places.times_N[code] > 0:
            return -1
    at = found.num_B[b]
    if at == found.codes_BC.shape[1]:
        return -1
    if code >= 0:
        places.candidate_N[code] = at
    found.codes_BC[b, at] = code
    found.sources_BC[b, at] = source
    found.num_B[b] += 1
    return int(at)


@compiled
def _leave(session: Session, work: Work, found: Found) -> None:
    """Empty the work space."""
    channels, places = work.channels, work.places
    clear(channels.neighbours, session.counts[0])
    clear(channels.after, session.counts[1])
    clear(channels.next_, session.counts[2])
    clear(channels.pair, session.counts[3])
    for row in session.items_H:
        places.times_N[row] = 0
    for c in range(found.num_B[session.number]):
        if found.codes_BC[session.number, c] >= 0:
            places.candidate_N[found.codes_BC[session.number, c]] = -1
