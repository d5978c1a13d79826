"""What a candidate and its session are like, in numbers: the features that a ranker weighs.

Compiled; knows rows only. Shapes: B sessions, H distinct items of one, newest first, M items near
the query, C candidates, F features, D dimensions, N items, P popular rows.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.click_memory import LONG_CLICKS, SHORT_CLICKS, Held
from index.compiled import compiled
from index.neighbours import Scores, Scratch

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

FEATURES: Final = (
    "similarity", "neighbours", "after", "next", "pair",
    "no_neighbours", "not_after", "not_next", "not_pair",
    "place_near", "place_neighbours", "next_clicks", "after_clicks", "pair_clicks",
    "is_current", "is_previous", "in_session", "times_in_session", "clicks_ago",
    "long_count", "short_count", "idle", "age", "like_current",
    "next_total", "pair_total", "session_length", "session_items", "current_count",
    "in_session_items", "current_length", "below_best", "not_near",
)  # fmt: skip
NEAR, NEIGHBOURS, RULES, POPULAR, SESSION = 1, 2, 4, 8, 16  # a candidate's sources, as bits
CHANNELS: Final = {"rnn": NEAR, "knn": NEIGHBOURS, "rules": RULES, "popular": POPULAR}
NOWHERE: Final = 1_000  # the place of a candidate that a channel did not bring
_FLOOR: Final = 1e-4
_FAR: Final = 30
_DAY_MS: Final = 86_400_000.0
_NEVER_DAYS: Final = 1_000.0


class Near(NamedTuple):
    """What the search by vector found, best first: codes (-1 none), cosines, and its inputs."""

    codes_BM: Int64
    cosines_BM: Float32
    queries_BD: Float32
    vectors_ND: Float32
    temperature: float


class Found(NamedTuple):
    """Candidates padded with -1, their features, the channels that brought them, their number."""

    codes_BC: Int64
    features_BCF: Float32
    sources_BC: Int32
    num_B: Int64


class Channels(NamedTuple):
    """Scores by row of one session; empty between sessions."""

    neighbours: Scores
    after: Scores
    next_: Scores
    pair: Scores


class Places(NamedTuple):
    """Where a row is among the candidates and in the ring (-1 not), and how often in the ring."""

    candidate_N: Int32
    ago_N: Int32
    times_N: Int32


class Work(NamedTuple):
    """Work space of one thread: nothing is left in it between two sessions."""

    scratch: Scratch
    channels: Channels
    places: Places


class Session(NamedTuple):
    """One session with its channels: how many rows each scored, and the sum of the scores.

    `on` are the channels that are looked at, as bits.
    """

    number: int
    on: int
    items_H: Int32
    length: int
    previous: int
    counts: Int64
    totals: Float32


class Also(NamedTuple):
    """What else may be a candidate: popular rows, and the items of the session itself or not.

    `on` are the channels that are looked at, as bits.
    """

    popular_P: Int32
    keep_session: bool
    on: int


class Order(NamedTuple):
    """At which place of the search by vector, and of the neighbours, a candidate came."""

    near_C: Int32
    neighbours_C: Int32


@compiled
def describe(
    held: Held, session: Session, near: Near, work: Work, order: Order, found: Found
) -> None:
    """Fill in the features of every candidate of a session.

    Those of a channel that is off stay 0, which a ranker that was fitted so does not see.
    """
    b = session.number
    for c in range(found.num_B[b]):
        code, feature_F = found.codes_BC[b, c], found.features_BCF[b, c]
        if code >= 0:
            _describe_channels(session, work.channels, code, feature_F)
        if session.on & NEIGHBOURS:
            feature_F[10] = 1.0 / (order.neighbours_C[c] + 2.0)
        if session.on & POPULAR:
            _describe_item(held, session, code, feature_F)
        _describe_session(session, work.places, code, feature_F)
    if session.on & NEAR:
        _describe_near(session, near, order, found)


@compiled
def _describe_near(session: Session, near: Near, order: Order, found: Found) -> None:
    """How near a candidate is to the query, and to the current item."""
    b, current = session.number, session.items_H[0]
    best = np.float32(-1.0)
    for c in range(found.num_B[b]):
        code, feature_F = found.codes_BC[b, c], found.features_BCF[b, c]
        place = order.near_C[c]
        if place < NOWHERE:
            cosine = near.cosines_BM[b, place]
        else:
            cosine = _dot(near.queries_BD[b], near.vectors_ND[code])
        feature_F[0] = near.temperature * cosine
        best = max(best, feature_F[0])
        feature_F[9] = 1.0 / (place + 2.0)
        feature_F[32] = place == NOWHERE
        if code >= 0:
            feature_F[23] = near.temperature * _dot(near.vectors_ND[current], near.vectors_ND[code])
    for c in range(found.num_B[b]):
        found.features_BCF[b, c, 31] = found.features_BCF[b, c, 0] - best


@compiled
def _dot(a_D: Float32, b_D: Float32) -> float:
    total = np.float32(0.0)
    for d in range(len(a_D)):
        total += a_D[d] * b_D[d]
    return float(total)


@compiled
def _describe_channels(session: Session, channels: Channels, code: int, feature_F: Float32) -> None:
    values = (
        channels.neighbours.score_N[code],
        channels.after.score_N[code],
        channels.next_.score_N[code],
        channels.pair.score_N[code],
    )
    for i in range(4):
        if session.on & (NEIGHBOURS if i == 0 else RULES):
            total = session.totals[i]
            feature_F[1 + i] = np.log((values[i] / total if total > 0 else 0.0) + _FLOOR)
            feature_F[5 + i] = values[i] == 0.0
    feature_F[11] = np.log1p(values[2])
    feature_F[12] = np.log1p(values[1])
    feature_F[13] = np.log1p(values[3])
    feature_F[24] = np.log1p(session.totals[2])
    feature_F[25] = np.log1p(session.totals[3])


@compiled
def _describe_item(held: Held, session: Session, code: int, feature_F: Float32) -> None:
    """Counts and times of an item; the clock is the newest click, so that a pause ages nothing."""
    feature_F[28] = np.log1p(held.facts.long_N[session.items_H[0]])
    facts = held.facts
    idle = age = _NEVER_DAYS
    if code >= 0 and facts.newest_N[code] >= 0:
        clicks = held.num_added - 1 - facts.newest_N[code]
        feature_F[19] = np.log1p(facts.long_N[code] * 0.5 ** (clicks / LONG_CLICKS))
        feature_F[20] = np.log(facts.short_N[code] * 0.5 ** (clicks / SHORT_CLICKS) + 0.01)
        if clicks < len(held.links.item_E):
            place = facts.newest_N[code] % len(held.links.item_E)
            idle = (held.newest_ms - held.links.time_E[place]) / _DAY_MS
        age = (held.newest_ms - facts.first_seen_N[code]) / _DAY_MS
    else:
        feature_F[20] = np.log(0.01)
    feature_F[21] = np.log(idle + 0.02)
    feature_F[22] = np.log(age + 0.02)


@compiled
def _describe_session(session: Session, places: Places, code: int, feature_F: Float32) -> None:
    """How the item stands in the session, and what the session is like."""
    current, distinct = session.items_H[0], len(session.items_H)
    ago, times = _FAR, 0
    if code >= 0 and places.times_N[code] > 0:
        ago, times = places.ago_N[code], places.times_N[code]
    feature_F[14] = code == current
    feature_F[15] = ago == 1
    feature_F[16] = times > 0
    feature_F[17] = times
    feature_F[18] = ago
    feature_F[26] = np.log1p(session.length)
    feature_F[27] = distinct
    feature_F[29] = distinct * (times > 0)
    feature_F[30] = min(session.length, 3) * (code == current)
