"""What a candidate and its session are like, in numbers: the features that a ranker weighs.

Compiled; knows rows only. Shapes: B sessions, H distinct items of one, newest first, M items near
the query, C candidates, F features, D dimensions, N items, P popular rows.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.click_memory import LONG_CLICKS, SHORT_CLICKS, Held, place_of
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
EXPLORED: Final = 32  # beside them: in its list to be tried
CHANNELS: Final = {"rnn": NEAR, "knn": NEIGHBOURS, "rules": RULES, "popular": POPULAR}
NOWHERE: Final = 1_000  # the place of a candidate that a channel did not bring
_FLOOR: Final = 1e-4
_LOG_FLOOR: Final = float(np.log(_FLOOR))
_FAR: Final = 30
_DAY_MS: Final = 86_400_000.0
_NEVER_DAYS: Final = 1_000.0
_LEAST_DAYS: Final = 0.02
_LOG_NEVER: Final = float(np.log(_NEVER_DAYS + _LEAST_DAYS))
_LEAST_COUNT: Final = 0.01
_LOG_LEAST_COUNT: Final = float(np.log(_LEAST_COUNT))


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
    """Work space of one thread; nothing is left in it between two sessions but `numbers_NX`.

    Those are the features of an item that no session changes, below 0 in the first where they are
    to be made anew.
    """

    scratch: Scratch
    channels: Channels
    places: Places
    numbers_NX: Float32


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
    codes_C, features_CF = found.codes_BC[b], found.features_BCF[b]
    alike_X = _alike(held, session)
    for c in range(found.num_B[b]):
        code = codes_C[c]
        _describe_channels(session, work.channels, code, features_CF, c)
        if session.on & NEIGHBOURS:
            features_CF[c, 10] = 1.0 / (order.neighbours_C[c] + 2.0)
        if session.on & POPULAR:
            _describe_item(held, work.numbers_NX, code, features_CF, c)
        _describe_session(session, work.places, code, features_CF, c)
        for i in range(len(alike_X)):
            features_CF[c, 24 + i] = alike_X[i]
    if session.on & NEAR:
        _describe_near(session, near, order.near_C, codes_C[: found.num_B[b]], features_CF)


@compiled
def _alike(held: Held, session: Session) -> Float32:
    """Return what is the same for all candidates of a session."""
    alike_X = np.zeros(5, np.float32)
    alike_X[0] = np.log1p(session.totals[2])
    alike_X[1] = np.log1p(session.totals[3])
    alike_X[2] = np.log1p(session.length)
    alike_X[3] = len(session.items_H)
    if session.on & POPULAR:
        alike_X[4] = np.log1p(held.facts.long_N[session.items_H[0]])
    return alike_X


@compiled
def _describe_near(
    session: Session, near: Near, places_C: Int32, codes_C: Int64, features_CF: Float32
) -> None:
    """How near a candidate is to the query, and to the current item."""
    vectors_ND, current_D = near.vectors_ND, near.vectors_ND[session.items_H[0]]
    query_D, cosines_M = near.queries_BD[session.number], near.cosines_BM[session.number]
    best = np.float32(-np.inf)
    for c in range(len(codes_C)):
        code, place = codes_C[c], places_C[c]
        cosine = cosines_M[place] if place < NOWHERE else _dot(vectors_ND, code, query_D)
        features_CF[c, 0] = near.temperature * cosine
        best = max(best, features_CF[c, 0])
        features_CF[c, 9] = 1.0 / (place + 2.0)
        features_CF[c, 32] = place == NOWHERE
        if code >= 0:
            features_CF[c, 23] = near.temperature * _dot(vectors_ND, code, current_D)
    for c in range(len(codes_C)):
        features_CF[c, 31] = features_CF[c, 0] - best


@compiled
def _dot(vectors_ND: Float32, row: int, other_D: Float32) -> float:
    total = np.float32(0.0)
    for d in range(len(other_D)):
        total += vectors_ND[row, d] * other_D[d]
    return float(total)


@compiled
def _describe_channels(
    session: Session, channels: Channels, code: int, features_CF: Float32, c: int
) -> None:
    """How each channel scores the item; most score few, and a logarithm takes its time."""
    nothing = np.float32(0.0)
    values = (nothing, nothing, nothing, nothing)
    if code >= 0:
        values = (
            channels.neighbours.score_N[code],
            channels.after.score_N[code],
            channels.next_.score_N[code],
            channels.pair.score_N[code],
        )
    for i in range(4):
        if session.on & (NEIGHBOURS if i == 0 else RULES):
            features_CF[c, 1 + i], features_CF[c, 5 + i] = _LOG_FLOOR, values[i] == 0.0
            if values[i] > 0.0:
                features_CF[c, 1 + i] = np.log(values[i] / session.totals[i] + _FLOOR)
    features_CF[c, 11] = np.log1p(values[2]) if values[2] > 0.0 else 0.0
    features_CF[c, 12] = np.log1p(values[1]) if values[1] > 0.0 else 0.0
    features_CF[c, 13] = np.log1p(values[3]) if values[3] > 0.0 else 0.0


@compiled
def _describe_item(
    held: Held, numbers_NX: Float32, code: int, features_CF: Float32, c: int
) -> None:
    """Counts and times of an item; those of a row are kept until a click is added."""
    if code < 0:
        features_CF[c, 19], features_CF[c, 20] = 0.0, _LOG_LEAST_COUNT
        features_CF[c, 21] = features_CF[c, 22] = _LOG_NEVER
        return
    if numbers_NX[code, 0] < 0.0:
        _number(held, code, numbers_NX[code])
    for i in range(4):
        features_CF[c, 19 + i] = numbers_NX[code, i]


@compiled
def _number(held: Held, row: int, number_X: Float32) -> None:
    """Counts and times of a row; the clock is the newest click, so that a pause ages nothing."""
    facts = held.facts
    number_X[0], number_X[1] = 0.0, _LOG_LEAST_COUNT
    idle = age = _NEVER_DAYS
    newest = facts.latest_NL[row, 0]
    if newest >= 0:
        clicks = held.num_added - 1 - newest
        number_X[0] = np.log1p(facts.long_N[row] * 0.5 ** (clicks / LONG_CLICKS))
        number_X[1] = np.log(facts.short_N[row] * 0.5 ** (clicks / SHORT_CLICKS) + _LEAST_COUNT)
        if clicks < len(held.links.item_E):
            idle = (held.newest_ms - held.links.time_E[place_of(held, newest)]) / _DAY_MS
        age = (held.newest_ms - facts.first_seen_N[row]) / _DAY_MS
    number_X[2] = np.log(idle + _LEAST_DAYS)
    number_X[3] = np.log(age + _LEAST_DAYS)


@compiled
def _describe_session(
    session: Session, places: Places, code: int, features_CF: Float32, c: int
) -> None:
    """How the item stands in the session."""
    current, distinct = session.items_H[0], len(session.items_H)
    ago, times = _FAR, 0
    if code >= 0 and places.times_N[code] > 0:
        ago, times = places.ago_N[code], places.times_N[code]
    features_CF[c, 14] = code == current
    features_CF[c, 15] = ago == 1
    features_CF[c, 16] = times > 0
    features_CF[c, 17] = times
    features_CF[c, 18] = ago
    features_CF[c, 29] = distinct * (times > 0)
    features_CF[c, 30] = min(session.length, 3) * (code == current)
