"""From candidates to lists: what is left out, what fills up; knows arrays only.

Shapes: B clicks, C candidates, X excluded codes, P popular rows, K items of a list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.sessions import EMPTY

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Lists:
    """Ranked lists: codes_BK is EMPTY-padded at its end, popularity fills from popular_from_B."""

    codes_BK: Array
    scores_BK: Array
    popular_from_B: Array


def rank(
    codes_BC: Array,
    scores_BC: Array,
    excluded_BX: Array,
    popular: tuple[Array, Array],
    k: int,
) -> Lists:
    """Return the best `k` candidates that are not excluded, filled up with popular items.

    Candidates come best first and EMPTY-padded; `popular` is (rows_P, scores_P) best first. Always
    k items where k exist.
    """
    keep_BC = codes_BC != EMPTY
    if excluded_BX.size:
        keep_BC &= ~(codes_BC[:, :, None] == excluded_BX[:, None, :]).any(axis=2)
    counts_B = np.minimum(keep_BC.sum(axis=1), k)
    if keep_BC[:, :k].all():
        codes_BK, scores_BK = codes_BC[:, :k], scores_BC[:, :k]
    else:
        order_BK = np.argsort(~keep_BC, axis=1, kind="stable")[:, :k]
        codes_BK = np.take_along_axis(codes_BC, order_BK, axis=1)
        scores_BK = np.take_along_axis(scores_BC, order_BK, axis=1)
    lists = _padded(codes_BK, scores_BK, counts_B, k)
    for b in np.flatnonzero(counts_B < k):
        _fill(lists, int(b), excluded_BX[b], popular)
    return lists


def _padded(codes_BK: Array, scores_BK: Array, counts_B: Array, k: int) -> Lists:
    width = codes_BK.shape[1]
    codes = np.full((len(codes_BK), k), EMPTY, np.int64)
    scores = np.zeros((len(codes_BK), k), np.float32)
    codes[:, :width], scores[:, :width] = codes_BK, scores_BK
    beyond_BK = np.arange(k) >= counts_B[:, None]
    codes[beyond_BK], scores[beyond_BK] = EMPTY, 0.0
    return Lists(codes, scores, counts_B)


def _fill(lists: Lists, b: int, excluded_X: Array, popular: tuple[Array, Array]) -> None:
    rows_P, scores_P = popular
    start = int(lists.popular_from_B[b])
    taken = np.concatenate([lists.codes_BK[b, :start], excluded_X])
    fresh = np.flatnonzero(~np.isin(rows_P, taken))[: lists.codes_BK.shape[1] - start]
    lists.codes_BK[b, start : start + len(fresh)] = rows_P[fresh]
    lists.scores_BK[b, start : start + len(fresh)] = scores_P[fresh]
