"""From candidates to lists: what is left out, what fills up; knows arrays only.

Shapes: B clicks, T candidates in order, X excluded codes, P popular rows, K items of a list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from index.features import POPULAR
from worker.fusion import Ordered
from worker.sessions import EMPTY

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Lists:
    """Ranked lists: codes_BK is EMPTY-padded at its end, popularity fills from popular_from_B.

    `sources_BK` are the channels that brought each item, as bits of `index/features.py`.
    """

    codes_BK: Array
    scores_BK: Array
    sources_BK: Array
    popular_from_B: Array


def rank(found: Ordered, excluded_BX: Array, popular: tuple[Array, Array], k: int) -> Lists:
    """Return the best `k` candidates that are not excluded, filled up with popular items.

    `popular` is (rows_P, scores_P) best first. Always k items where k exist.
    """
    keep_BT = found.codes_BT != EMPTY
    if excluded_BX.size:
        keep_BT &= ~(found.codes_BT[:, :, None] == excluded_BX[:, None, :]).any(axis=2)
    counts_B = np.minimum(keep_BT.sum(axis=1), k)
    if keep_BT[:, :k].all():
        best = Ordered(*(column_BT[:, :k] for column_BT in found))
    else:
        order_BK = np.argsort(~keep_BT, axis=1, kind="stable")[:, :k]
        best = Ordered(*(np.take_along_axis(column_BT, order_BK, axis=1) for column_BT in found))
    lists = _padded(best, counts_B, k)
    for b in np.flatnonzero(counts_B < k):
        _fill(lists, int(b), excluded_BX[b], popular)
    return lists


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
