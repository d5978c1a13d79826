"""From candidates to lists: what is left out, what gives way, what fills up; knows arrays only.

Shapes: B clicks, T candidates in order, X excluded codes, P popular rows, K items of a list, N
items, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final, NamedTuple

import numpy as np

from index.diversity import POOL, diverse_places
from index.features import POPULAR
from worker.fusion import Ordered
from worker.sessions import EMPTY

Array = np.ndarray[Any, np.dtype[Any]]

_FROM_POPULAR: Final = 32


@dataclass(frozen=True, slots=True)
class Lists:
    """Ranked lists: codes_BK is EMPTY-padded at its end, popularity fills from popular_from_B.

    `sources_BK` are the channels that brought each item, as bits of `index/features.py`.
    """

    codes_BK: Array
    scores_BK: Array
    sources_BK: Array
    popular_from_B: Array

    def replaced(self, chosen_B: Array, others: Lists) -> Lists:
        """Return these lists, those of the chosen clicks taken one by one from `others`."""
        columns = [(getattr(self, each.name).copy(), each.name) for each in fields(self)]
        for column, name in columns:
            column[chosen_B] = getattr(others, name)
        return Lists(*(column for column, _ in columns))


class Spread(NamedTuple):
    """How like items give way to others: item vectors, the cost of likeness, logits per score."""

    vectors_ND: Array
    weight: float
    scale: float


def rank(
    found: Ordered,
    excluded_BX: Array,
    popular: tuple[Array, Array],
    k: int,
    spread: Spread | None = None,
) -> Lists:
    """Return the best `k` candidates that are not excluded, filled up with popular items.

    `popular` is (rows_P, scores_P) best first. Always k items where k exist. With `spread` the `k`
    are chosen among more, popular ones too, so that a list is not all of a kind; the order stays.
    """
    width = k
    if spread is not None:
        found = _joined_by_popular(found, popular[0][:_FROM_POPULAR], k)
        width = max(k, POOL + _FROM_POPULAR)
    keep_BT = found.codes_BT != EMPTY
    if excluded_BX.size:
        keep_BT &= ~(found.codes_BT[:, :, None] == excluded_BX[:, None, :]).any(axis=2)
    counts_B = np.minimum(keep_BT.sum(axis=1), k)
    if keep_BT[:, :width].all():
        best = Ordered(*(column_BT[:, :width] for column_BT in found))
    else:
        best = _taken(found, np.argsort(~keep_BT, axis=1, kind="stable")[:, :width])
    if spread is not None:
        best = _spread(best, np.minimum(keep_BT.sum(axis=1), width), spread, k)
    lists = _padded(best, counts_B, k)
    for b in np.flatnonzero(counts_B < k):
        _fill(lists, int(b), excluded_BX[b], popular)
    return lists


def _joined_by_popular(found: Ordered, rows_P: Array, k: int) -> Ordered:
    """Return the candidates with popular items behind them, as unlikely as the last of them.

    What the channels find is like the session, so an item that is unlike it has to come from
    elsewhere. A list of few candidates is filled up anyway.
    """
    exist_BT = found.codes_BT != EMPTY
    known_BP = (found.codes_BT[:, None, :] == rows_P[:, None]).any(axis=2)
    few_B = exist_BT.sum(axis=1) < k
    codes_BP = np.where(known_BP | few_B[:, None], EMPTY, rows_P)
    last_B = np.where(exist_BT, found.scores_BT, np.inf).min(axis=1, initial=np.inf)
    scores_BP = np.broadcast_to(last_B[:, None], codes_BP.shape)
    sources_BP = np.full(codes_BP.shape, POPULAR, found.sources_BT.dtype)
    more = (codes_BP, np.where(np.isfinite(scores_BP), scores_BP, 0.0), sources_BP)
    return Ordered(*(np.concatenate(pair, axis=1) for pair in zip(found, more, strict=True)))


def _taken(found: Ordered, places_BK: Array) -> Ordered:
    return Ordered(*(np.take_along_axis(column_BT, places_BK, axis=1) for column_BT in found))


def _spread(best: Ordered, num_B: Array, spread: Spread, k: int) -> Ordered:
    places_BK = diverse_places(
        np.ascontiguousarray(best.codes_BT, np.int64),
        np.ascontiguousarray(best.scores_BT * np.float32(spread.scale), np.float32),
        *(num_B, spread.vectors_ND, spread.weight, min(k, best.codes_BT.shape[1])),
    )
    return _taken(best, np.maximum(places_BK, 0))


def _padded(best: Ordered, counts_B: Array, k: int) -> Lists:
    num, width = best.codes_BT.shape
    codes_BK = np.full((num, k), EMPTY, np.int64)
    scores_BK = np.zeros((num, k), np.float32)
    sources_BK = np.zeros((num, k), np.int32)
    codes_BK[:, :width], scores_BK[:, :width] = best.codes_BT, best.scores_BT
    sources_BK[:, :width] = best.sources_BT
    beyond_BK = np.arange(k) >= counts_B[:, None]
    codes_BK[beyond_BK], scores_BK[beyond_BK], sources_BK[beyond_BK] = EMPTY, 0.0, 0
    return Lists(codes_BK, scores_BK, sources_BK, counts_B)


def _fill(lists: Lists, b: int, excluded_X: Array, popular: tuple[Array, Array]) -> None:
    rows_P, scores_P = popular
    start = int(lists.popular_from_B[b])
    taken = np.concatenate([lists.codes_BK[b, :start], excluded_X])
    fresh = np.flatnonzero(~np.isin(rows_P, taken))[: lists.codes_BK.shape[1] - start]
    lists.codes_BK[b, start : start + len(fresh)] = rows_P[fresh]
    lists.scores_BK[b, start : start + len(fresh)] = scores_P[fresh]
    lists.sources_BK[b, start : start + len(fresh)] = POPULAR
