"""How good ranked lists with one right answer each are; knows no model and no click log.

A list is the whole answer: what is not in it is missed, so ties cannot be counted in its favour.
Shapes: B lists of one call, K items of a list, P predictions.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

MISSED: Final = 0


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Means over predictions; each has one relevant item, so precision is recall / k."""

    num: int = 0
    recall: float = 0.0
    mrr: float = 0.0
    ndcg: float = 0.0


def ranks_of(targets_B: Int64, lists_BK: Int64) -> Int64:
    """Return the place of each target in its list, 1 is best, MISSED where it is not in it."""
    hits_BK = lists_BK == targets_B[:, None]
    return np.where(hits_BK.any(axis=1), hits_BK.argmax(axis=1) + 1, MISSED)


def hits(ranks_P: Int64) -> Float64:
    """Return 1 for each target that was in its list."""
    return np.asarray(ranks_P != MISSED, np.float64)


def reciprocal_ranks(ranks_P: Int64) -> Float64:
    """Return 1 / rank, 0 for a miss."""
    reciprocals_P: Float64 = np.where(ranks_P == MISSED, 0.0, 1.0 / np.maximum(ranks_P, 1))
    return reciprocals_P


def discounted_gains(ranks_P: Int64) -> Float64:
    """Return 1 / log2(rank + 1), 0 for a miss; with one relevant item the ideal gain is 1."""
    gains_P: Float64 = np.where(ranks_P == MISSED, 0.0, 1.0 / np.log2(np.maximum(ranks_P, 1) + 1.0))
    return gains_P


def accuracy(ranks_P: Int64) -> Accuracy:
    """Return the means over some predictions, all 0 without any."""
    if not len(ranks_P):
        return Accuracy()
    return Accuracy(
        num=len(ranks_P),
        recall=float(hits(ranks_P).mean()),
        mrr=float(reciprocal_ranks(ranks_P).mean()),
        ndcg=float(discounted_gains(ranks_P).mean()),
    )
