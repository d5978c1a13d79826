"""Rank the next click against the whole catalogue; pure functions of arrays.

Shapes: M predictions, N items, D dimensions, B windows, K list length.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.windows import Int64, Windows

Float64 = NDArray[np.float64]

K: Final = 20
_BLOCK_SCORES = 4_000_000  # scores held at once, 16 MB


@dataclass(frozen=True, slots=True)
class Score:
    """Sums over predictions; scores of disjoint clicks add up."""

    num: int = 0
    hits: int = 0
    reciprocal: float = 0.0

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.num + other.num, self.hits + other.hits, self.reciprocal + other.reciprocal
        )

    @property
    def recall(self) -> float:
        """Recall@20, 0 without predictions."""
        return self.hits / self.num if self.num else 0.0

    @property
    def mrr(self) -> float:
        """MRR@20, 0 without predictions."""
        return self.reciprocal / self.num if self.num else 0.0


def target_ranks(queries_MD: Tensor, vectors_ND: Tensor, targets_M: Int64) -> Int64:
    """Return the rank of each target, 1 is best and every tie counts against it.

    A target without a row here, or whose score is not finite, ranks behind the catalogue.
    """
    num_items = len(vectors_ND)
    ranks_M = np.full(len(targets_M), num_items + 1, np.int64)
    block = max(1, _BLOCK_SCORES // max(num_items, 1))
    known = np.flatnonzero(targets_M < num_items)
    for start in range(0, len(known), block):
        chosen = known[start : start + block]
        scores_MN = queries_MD[torch.from_numpy(chosen)] @ vectors_ND.T
        target_M = scores_MN.gather(1, torch.from_numpy(targets_M[chosen])[:, None])
        better_M = (scores_MN >= target_M).sum(1)  # the target itself is among them
        finite_M = torch.isfinite(target_M).squeeze(1)
        ranks_M[chosen] = torch.where(finite_M, better_M, num_items + 1).numpy()
    return ranks_M


def reciprocals(ranks_M: Int64, *, k: int = K) -> Float64:
    """Return reciprocal ranks, 0 beyond the first `k`."""
    return np.where(ranks_M <= k, 1.0 / ranks_M, 0.0)


def score(ranks_M: Int64, *, k: int = K) -> Score:
    """Sum up hits and reciprocal ranks within the first `k`."""
    return Score(len(ranks_M), int((ranks_M <= k).sum()), float(reciprocals(ranks_M, k=k).sum()))


def times_shown(queries_MD: Tensor, vectors_ND: Tensor, *, k: int = K) -> Int64:
    """Return how many of the lists for these queries show each item [N]."""
    num_items = len(vectors_ND)
    shown_N = np.zeros(num_items, np.int64)
    for block_MD in torch.split(queries_MD, max(1, _BLOCK_SCORES // max(num_items, 1))):
        rows_MK = (block_MD @ vectors_ND.T).topk(min(k, num_items), 1).indices
        shown_N += np.bincount(rows_MK.reshape(-1).numpy(), minlength=num_items)
    return shown_N


def thin(windows: Windows, max_predictions: int) -> Windows:
    """Keep evenly spread windows with at most about `max_predictions` targets."""
    targets = windows.num_targets
    if targets <= max_predictions:
        return windows
    keep = max(1, len(windows) * max_predictions // targets)
    return windows.select(np.linspace(0, len(windows) - 1, keep).astype(np.int64))
