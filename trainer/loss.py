"""Losses over cosine scores: sampled softmax with logQ, hardest negatives, BPR-max; knows tensors.

Shapes: M targets, C candidate items, N items of the catalogue, D dimensions.
"""

from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid

_ABSENT: Final = -1e9  # the score of no negative; infinite, a lone candidate would give NaN


class NegativeSampler:
    """Draws negatives in proportion to `count ** power` and corrects for how it drew them."""

    def __init__(self, counts_N: Tensor, *, power: float = 0.5) -> None:
        counts_N = counts_N.double()
        self._target_share_N = counts_N / counts_N.sum().clamp_min(1e-12)
        weight_N = (counts_N + 0.5) ** power  # the floor keeps every item reachable
        self._draw_share_N = weight_N / weight_N.sum()
        self._cumulative_N = self._draw_share_N.cumsum(0)

    def draw(self, num: int) -> Tensor:
        """Draw rows with replacement from the global generator."""
        drawn = torch.searchsorted(self._cumulative_N, torch.rand(num, dtype=torch.float64))
        return drawn.clamp_(max=len(self._cumulative_N) - 1)

    def log_inclusion(self, rows_C: Tensor, *, num_targets: int, num_drawn: int) -> Tensor:
        """Return log P(row is among the unique candidates of a batch), a Poisson approximation.

        With `num_targets` targets and `num_drawn` negatives a row is expected
        lambda = targets * p + drawn * r times, and appears at all with 1 - exp(-lambda).
        """
        expected_C = num_targets * self._target_share_N[rows_C]
        expected_C += num_drawn * self._draw_share_N[rows_C]
        return torch.log(-torch.expm1(-expected_C.clamp_min(1e-12))).float()


class _SoftmaxLoss(torch.autograd.Function):
    """Mean cross-entropy with gradients computed in place: the M x C scores are the hot memory.

    benchmarks/trainer.py: about twice the clicks per second of the same loss in plain autograd.
    """

    @staticmethod
    def forward(
        ctx: Any, queries_MD: Tensor, items_CD: Tensor, positions_M: Tensor, correction_C: Tensor
    ) -> Tensor:
        scores_MC = queries_MD @ items_CD.T
        target_M = torch.arange(len(queries_MD))
        positive_M = scores_MC[target_M, positions_M]
        scores_MC -= correction_C
        scores_MC[target_M, positions_M] = positive_M
        highest_M = scores_MC.max(1, keepdim=True).values
        scores_MC.sub_(highest_M).exp_()
        total_M = scores_MC.sum(1, keepdim=True)
        loss_M = (total_M.log() + highest_M).squeeze(1) - positive_M
        scores_MC /= total_M * len(queries_MD)
        scores_MC[target_M, positions_M] -= 1.0 / len(queries_MD)
        ctx.save_for_backward(scores_MC @ items_CD, scores_MC.T @ queries_MD)
        return loss_M.mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        queries_MD, items_CD = ctx.saved_tensors
        return queries_MD * gradients[0], items_CD * gradients[0], None, None


def softmax_loss(
    queries_MD: Tensor,
    items_CD: Tensor,
    positions_M: Tensor,
    *,
    temperature: float,
    log_inclusion_C: Tensor | None = None,
) -> Tensor:
    """Return the mean cross-entropy of each target among the unique candidates.

    `positions_M` says which candidate is the target. The correction applies to negatives only:
    the positive is always in the sum ("Correcting the LogQ correction", RecSys 2025). Candidates
    are unique, so a drawn negative never competes with itself as the target.
    """
    if log_inclusion_C is None:
        log_inclusion_C = torch.zeros(len(items_CD))
    loss: Tensor = _SoftmaxLoss.apply(
        queries_MD * temperature, items_CD, positions_M, log_inclusion_C
    )
    return loss


def hardest_loss(
    queries_MD: Tensor, items_CD: Tensor, positions_M: Tensor, *, temperature: float, num: int
) -> Tensor:
    """Return the mean cross-entropy of each target among its `num` highest-scoring negatives.

    Without a correction for how they were drawn: they are not drawn, they are the ones in the way.
    """
    positive_M1, negative_MC = _scores(queries_MD * temperature, items_CD, positions_M)
    hardest_MK = negative_MC.topk(min(num, negative_MC.shape[1]), dim=1).values
    among = torch.cat([positive_M1, hardest_MK], dim=1)
    return -log_softmax(among, dim=1)[:, 0].mean()


def bpr_max_loss(
    queries_MD: Tensor,
    items_CD: Tensor,
    positions_M: Tensor,
    *,
    temperature: float,
    regularisation: float,
) -> Tensor:
    """Return BPR-max (Hidasi & Karatzoglou, CIKM 2018) over the candidates as shared negatives.

    Per target -log(sum of w * sigmoid(target - negative)) + regularisation * sum of w * negative²,
    w being the softmax over its negatives: the highest count most, and are drawn towards zero.
    """
    positive_M1, negative_MC = _scores(queries_MD * temperature, items_CD, positions_M)
    log_weight_MC = log_softmax(negative_MC, dim=1)
    won_M = torch.logsumexp(log_weight_MC + logsigmoid(positive_M1 - negative_MC), dim=1)
    squares_MC = torch.where(negative_MC > _ABSENT, negative_MC, 0.0).square()
    return (regularisation * (log_weight_MC.exp() * squares_MC).sum(dim=1) - won_M).mean()


def _scores(queries_MD: Tensor, items_CD: Tensor, positions_M: Tensor) -> tuple[Tensor, Tensor]:
    """Return each target's score [M, 1], and all scores with a very low one in its place."""
    scores_MC = queries_MD @ items_CD.T
    at_M1 = positions_M[:, None]
    return scores_MC.gather(1, at_M1), scores_MC.scatter(1, at_M1, _ABSENT)


def unique_rows(num_rows: int, *parts: Tensor) -> Tensor:
    """Return the sorted unique rows of all parts; a mask beats sorting for small catalogues."""
    joined = torch.cat([part.reshape(-1) for part in parts])
    if num_rows > 16 * len(joined):
        return torch.from_numpy(np.unique(joined.numpy()))
    present_N = torch.zeros(num_rows, dtype=torch.bool)
    present_N[joined] = True
    return torch.nonzero(present_N).squeeze(1)
