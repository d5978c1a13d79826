"""First item vectors from what sessions clicked together; knows no encoder and no learning.

A randomised decomposition (Halko, Martinsson, Tropp 2011) of the normalised co-visit counts: items
of the same sessions start near each other, so a rare item does not have to find its place by a few
noisy steps. Shapes: F clicks, S sessions, P pairs, N items, D dimensions, R = D + oversampling.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

_MAX_CLICKS = 4_000_000  # the latest; with the next bound, somewhat over a gigabyte
_MAX_PAIRS = 10_000_000
_MAX_GAP = 5  # clicks n apart are a co-visit of weight 1 / n
_SELF_WEIGHT = 0.3  # on the diagonal; leaves groups of mutual successors above the rest
_OVERSAMPLING = 16
_ROUNDS = 5  # of the power iteration
_NOISE = 0.1  # length of the random part beside the unit part; all that an isolated item has


def covisitation_start(
    rows_F: Int64, start_S: Int64, num_items: int, dim: int, rng: np.random.Generator
) -> Float32:
    """Return first vectors [N, D] of length about one, near each other for items of one session.

    `rows_F` holds the item rows of all sessions, one session after the other, each from its
    `start_S`. An item that no session has beside another one gets a short random vector.
    """
    noise_ND = _draw(rng, num_items, dim)
    noise_ND *= _NOISE / dim**0.5
    counts = _count(rows_F, start_S, num_items)
    width = min(dim + _OVERSAMPLING, num_items)
    basis_NR = _draw(rng, num_items, width)
    turn_DD = torch.linalg.qr(_draw(rng, dim, dim))[0]
    for _ in range(_ROUNDS):
        # Row by row in memory again: QR answers by columns, which the product reads slowly.
        basis_NR = torch.linalg.qr(counts.times(basis_NR))[0].contiguous()
    start_ND = normalize(_embed(counts, basis_NR, dim), dim=1)
    start_ND *= counts.visited_N[:, None]
    # Turned at random: otherwise the first components would carry most of every vector.
    first_ND: Float32 = (start_ND @ turn_DD + noise_ND).numpy()
    return first_ND


@dataclass(frozen=True, slots=True)
class _Counts:
    """Normalised symmetric co-visit counts in compressed rows."""

    offsets_N: Tensor
    others_P: Tensor
    weights_P: Tensor
    visited_N: Tensor

    def times(self, dense_NR: Tensor) -> Tensor:
        """Multiply; this kernel sums weighted rows faster than torch's sparse product."""
        product_NR = embedding_bag(
            self.others_P,
            dense_NR,
            self.offsets_N,
            mode="sum",
            per_sample_weights=self.weights_P,
        )
        return product_NR.add_(dense_NR, alpha=_SELF_WEIGHT)


def _embed(counts: _Counts, basis_NR: Tensor, dim: int) -> Tensor:
    """Return the main components, each scaled by the root of its eigenvalue."""
    small_RR = basis_NR.T @ counts.times(basis_NR)
    values_R, vectors_RR = torch.linalg.eigh((small_RR + small_RR.T) / 2)
    values_K = values_R[-dim:].clamp(min=0)
    scaled_NK = basis_NR @ (vectors_RR[:, -dim:] * values_K.sqrt())
    missing = dim - scaled_NK.shape[1]
    return torch.nn.functional.pad(scaled_NK, (0, missing))


def _count(rows_F: Int64, start_S: Int64, num_items: int) -> _Counts:
    low_P, high_P, weights_P = _pairs(rows_F, start_S, num_items)
    one_P, other_P = np.append(low_P, high_P), np.append(high_P, low_P)
    weights_P = np.append(weights_P, weights_P)
    order_P = np.argsort(one_P, kind="stable")
    total_N = np.bincount(one_P, weights_P, minlength=num_items)
    # The mean in it keeps rare pairs from being components of their own.
    scale_N = 1 / np.sqrt(total_N + max(1.0, total_N.mean()))
    weights_P = weights_P * scale_N[one_P] * scale_N[other_P]
    sizes_N = np.bincount(one_P, minlength=num_items)
    return _Counts(
        offsets_N=torch.from_numpy(np.cumsum(sizes_N) - sizes_N),
        others_P=torch.from_numpy(other_P[order_P]),
        weights_P=torch.from_numpy(weights_P[order_P].astype(np.float32)),
        visited_N=torch.from_numpy(sizes_N > 0),
    )


def _pairs(
    rows_F: Int64, start_S: Int64, num_items: int
) -> tuple[Int64, Int64, NDArray[np.float64]]:
    """Return every pair of items (lower row first) seen within a few clicks, and its weight."""
    session_F = np.zeros(len(rows_F), np.int64)
    session_F[start_S[1:]] = 1
    session_F = np.cumsum(session_F)[-_MAX_CLICKS:]
    rows_F = rows_F[-_MAX_CLICKS:]
    keys, weights, num_pairs = [], [], 0
    for gap in range(1, _MAX_GAP + 1):
        one_P, other_P = rows_F[:-gap], rows_F[gap:]
        kept_P = (session_F[gap:] == session_F[:-gap]) & (one_P != other_P)
        one_P, other_P = one_P[kept_P], other_P[kept_P]
        num_pairs += len(one_P)
        if gap > 1 and num_pairs > _MAX_PAIRS:
            break
        keys.append(np.minimum(one_P, other_P) * num_items + np.maximum(one_P, other_P))
        weights.append(np.full(len(one_P), 1 / gap))
    key_P, place = np.unique(np.concatenate(keys), return_inverse=True)
    weight_P: NDArray[np.float64] = np.zeros(len(key_P))
    np.add.at(weight_P, place, np.concatenate(weights))
    return key_P // num_items, key_P % num_items, weight_P


def _draw(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
