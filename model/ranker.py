"""The learnt order of candidates: a linear score for all, a small network for the best of them.

Knows features by position only; what they are is `index/features.py`. Plain arrays, no autograd.
Shapes: B sessions, C candidates, F features, T best by the linear score, X = F + 2 inputs, U units.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

TOP: Final = 64
UNITS: Final = 48
_OUT: Final = np.float32(-1e9)


class RankerWeights(NamedTuple):
    """What is fitted; the features are standardised with `mean_F` and `scale_F` first."""

    mean_F: Float32
    scale_F: Float32
    linear_F: Float32
    skip_X: Float32
    first_XU: Float32
    first_bias_U: Float32
    second_UU: Float32
    second_bias_U: Float32
    last_U: Float32


def shapes(num_features: int) -> RankerWeights:
    """Return weights of zeros, as a ranker of so many features has them."""
    f, x, u = num_features, num_features + 2, UNITS
    sizes = ((f,), (f,), (f,), (x,), (x, u), (u,), (u, u), (u,), (u,))
    return RankerWeights(*(np.zeros(size, np.float32) for size in sizes))


class Ranked(NamedTuple):
    """Places of candidates, best first, and their scores; -1 and -inf beyond the last one."""

    places_BT: Int64
    scores_BT: Float32


def rank_candidates(weights: RankerWeights, features_BCF: Float32, num_B: Int64) -> Ranked:
    """Return the best `TOP` candidates of each session in the ranker's order.

    Scores are logits: their differences are log odds. Candidates below the best by the linear
    score are left out.
    """
    linear_BC = linear_scores(weights, features_BCF, num_B)
    places_BT = top_places(linear_BC)
    inputs_BTX = network_inputs(weights, features_BCF, linear_BC, places_BT)
    scores_BT = _network(weights, inputs_BTX)
    scores_BT[np.take_along_axis(linear_BC, places_BT, 1) <= _OUT] = -np.inf
    order_BT = np.argsort(-scores_BT, axis=1, kind="stable")
    places_BT = np.take_along_axis(places_BT, order_BT, 1)
    scores_BT = np.take_along_axis(scores_BT, order_BT, 1)
    return Ranked(np.where(np.isneginf(scores_BT), -1, places_BT), scores_BT)


def linear_scores(weights: RankerWeights, features_BCF: Float32, num_B: Int64) -> Float32:
    """Return the linear score of every candidate, a very low one where there is none."""
    by_feature_F = weights.linear_F / weights.scale_F
    scores_BC: Float32 = features_BCF @ by_feature_F - weights.mean_F @ by_feature_F
    scores_BC[np.arange(scores_BC.shape[1]) >= num_B[:, None]] = _OUT
    return scores_BC


def top_places(linear_BC: Float32) -> Int64:
    """Return the places of the best `TOP`, best first."""
    top = min(TOP, linear_BC.shape[1])
    places_BT = np.argpartition(-linear_BC, top - 1, axis=1)[:, :top]
    order_BT = np.argsort(-np.take_along_axis(linear_BC, places_BT, 1), axis=1, kind="stable")
    return np.take_along_axis(places_BT, order_BT, 1)


def network_inputs(
    weights: RankerWeights, features_BCF: Float32, linear_BC: Float32, places_BT: Int64
) -> Float32:
    """Return what the network sees: standardised features, linear score below the best, 1/place."""
    num, width, num_features = features_BCF.shape
    first_row_B1 = np.arange(0, num * width, width)[:, None]
    best_BTF = np.take(features_BCF.reshape(-1, num_features), first_row_B1 + places_BT, axis=0)
    best_BTF -= weights.mean_F
    best_BTF *= 1.0 / weights.scale_F
    linear_BT = np.take_along_axis(linear_BC, places_BT, 1)
    below_BT = np.maximum(linear_BT - linear_BT[:, :1], -30.0)
    by_place_T = 1.0 / (1.0 + np.arange(places_BT.shape[1], dtype=np.float32))
    inputs_BTX = np.empty((*places_BT.shape, len(weights.skip_X)), np.float32)
    inputs_BTX[..., :-2] = best_BTF
    inputs_BTX[..., -2] = below_BT
    inputs_BTX[..., -1] = by_place_T
    return inputs_BTX


def _network(weights: RankerWeights, inputs_BTX: Float32) -> Float32:
    inputs_MX = inputs_BTX.reshape(-1, inputs_BTX.shape[2])
    hidden_MU = _rectified(inputs_MX @ weights.first_XU, weights.first_bias_U)
    hidden_MU = _rectified(hidden_MU @ weights.second_UU, weights.second_bias_U)
    scores_M: NDArray[Any] = hidden_MU @ weights.last_U + inputs_MX @ weights.skip_X
    return scores_M.astype(np.float32, copy=False).reshape(inputs_BTX.shape[:2])


def _rectified(sums_MU: Float32, bias_U: Float32) -> Float32:
    sums_MU += bias_U
    return np.maximum(sums_MU, 0.0, out=sums_MU)
