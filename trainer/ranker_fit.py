"""Fits the order of candidates on clicks that no channel had learnt; knows no channel.

A conditional logit over all candidates (McFadden 1974), then a small network over its best.
Shapes: M examples, C candidates, F features, T best, X inputs of the network.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from model.ranker import (
    UNITS,
    RankerWeights,
    linear_scores,
    network_inputs,
    shapes,
    top_places,
)

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

_LINEAR_EPOCHS: Final = 8
_NETWORK_EPOCHS: Final = 10
_AGAIN: Final = 0.2  # part of the epochs when it goes on from earlier weights
_BATCH: Final = 256
_LINEAR_RATE: Final = 0.03
_NETWORK_RATE: Final = 0.004
_DECAY: Final = 1e-4
_DROPOUT: Final = 0.1
_OUT: Final = -1e9
_STANDARDISED_BY: Final = 2_000  # examples
_LEAST_SCALE: Final = 1e-3


class Examples(NamedTuple):
    """Candidates of sessions whose next click is known: `target_M` is its place among them."""

    features_MCF: NDArray[Any]
    num_M: Int64
    target_M: Int64

    def select(self, chosen: NDArray[Any] | slice) -> "Examples":
        """Return some of the examples."""
        return Examples(self.features_MCF[chosen], self.num_M[chosen], self.target_M[chosen])


class _Network(nn.Module):
    def __init__(self, num_inputs: int) -> None:
        super().__init__()
        self.skip = nn.Linear(num_inputs, 1, bias=False)
        self.first = nn.Linear(num_inputs, UNITS)
        self.second = nn.Linear(UNITS, UNITS)
        self.last = nn.Linear(UNITS, 1, bias=False)
        self.drop = nn.Dropout(_DROPOUT)
        nn.init.zeros_(self.skip.weight)
        with torch.no_grad():
            self.skip.weight[0, -2] = 1.0  # it starts as the linear score
            self.last.weight.mul_(0.1)

    def load(self, weights: RankerWeights) -> None:
        """Start from the weights of an earlier fit."""
        _load(self.skip.weight, weights.skip_X[None])
        _load(self.first.weight, weights.first_XU.T)
        _load(self.first.bias, weights.first_bias_U)
        _load(self.second.weight, weights.second_UU.T)
        _load(self.second.bias, weights.second_bias_U)
        _load(self.last.weight, weights.last_U[None])

    def forward(self, x_BTX: Tensor) -> Tensor:
        """Return the scores [B, T]."""
        hidden = self.drop(torch.relu(self.first(x_BTX)))
        scores = self.last(torch.relu(self.second(hidden))) + self.skip(x_BTX)
        return torch.as_tensor(scores).squeeze(-1)


def fit_ranker(
    examples: Examples, *, seed: int, start: RankerWeights | None = None
) -> RankerWeights:
    """Return a fitted ranker; the examples' targets are among their candidates.

    From `start` it goes on for a few epochs with the same standardisation. Raises ValueError
    without examples.
    """
    if not len(examples.num_M):
        raise ValueError("no click to fit the ranker on")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = _fit_linear(examples, start)
        return _fit_network(weights, examples, start)


def _fit_linear(examples: Examples, start: RankerWeights | None) -> RankerWeights:
    features, num_M = examples.features_MCF, examples.num_M
    inside_MC = np.arange(features.shape[1]) < num_M[:, None]
    linear = nn.Linear(features.shape[2], 1, bias=False)
    if start is None:
        sample = slice(None, _STANDARDISED_BY)
        sample_NF = features[sample][inside_MC[sample]].astype(np.float32)
        mean_F, scale_F = sample_NF.mean(axis=0), sample_NF.std(axis=0) + _LEAST_SCALE
        nn.init.zeros_(linear.weight)
    else:
        mean_F, scale_F = start.mean_F, start.scale_F
        _load(linear.weight, start.linear_F[None])

    def scores(chosen: Int64) -> Tensor:
        x_BCF = (features[chosen].astype(np.float32) - mean_F) / scale_F
        scores_BC: Tensor = linear(torch.from_numpy(x_BCF)).squeeze(-1)
        return scores_BC.masked_fill(~torch.from_numpy(inside_MC[chosen]), _OUT)

    _descend(linear, scores, examples.target_M, *_budget(_LINEAR_EPOCHS, _LINEAR_RATE, start))
    empty = shapes(features.shape[2])
    return empty._replace(mean_F=mean_F, scale_F=scale_F, linear_F=_array(linear.weight[0]))


def _fit_network(
    weights: RankerWeights, examples: Examples, start: RankerWeights | None
) -> RankerWeights:
    inputs_MTX, inside_MT, target_M = _network_examples(weights, examples)
    network = _Network(inputs_MTX.shape[2])
    if start is not None:
        network.load(start)

    def scores(chosen: Int64) -> Tensor:
        scores_BT: Tensor = network(torch.from_numpy(inputs_MTX[chosen].astype(np.float32)))
        return scores_BT.masked_fill(~torch.from_numpy(inside_MT[chosen]), _OUT)

    _descend(network, scores, target_M, *_budget(_NETWORK_EPOCHS, _NETWORK_RATE, start))
    return weights._replace(
        skip_X=_array(network.skip.weight[0]),
        first_XU=_array(network.first.weight.T),
        first_bias_U=_array(network.first.bias),
        second_UU=_array(network.second.weight.T),
        second_bias_U=_array(network.second.bias),
        last_U=_array(network.last.weight[0]),
    )


def _network_examples(
    weights: RankerWeights, examples: Examples
) -> tuple[NDArray[Any], NDArray[np.bool_], Int64]:
    """Return inputs, which places are candidates, and the target's place among the best."""
    inputs, inside, targets = [], [], []
    for start in range(0, len(examples.num_M), _BATCH):
        part = examples.select(np.arange(start, min(start + _BATCH, len(examples.num_M))))
        features_BCF = part.features_MCF.astype(np.float32)
        linear_BC = linear_scores(weights, features_BCF, part.num_M)
        places_BT = top_places(linear_BC)
        is_target_BT = places_BT == part.target_M[:, None]
        reached = is_target_BT.any(1)
        inputs_BTX = network_inputs(weights, features_BCF, linear_BC, places_BT)
        inputs.append(inputs_BTX[reached].astype(np.float16))
        inside.append((places_BT < part.num_M[:, None])[reached])
        targets.append(is_target_BT[reached].argmax(1))
    return np.concatenate(inputs), np.concatenate(inside), np.concatenate(targets)


def _budget(epochs: int, rate: float, start: RankerWeights | None) -> tuple[int, float]:
    """Return epochs and rate: a fifth of both for a ranker that only follows the stream."""
    return (epochs, rate) if start is None else (max(1, round(epochs * _AGAIN)), rate * _AGAIN)


def _descend(
    module: nn.Module, scores: Callable[[Int64], Tensor], target_M: Int64, epochs: int, rate: float
) -> None:
    """Minimise the cross-entropy of the targets with AdamW, its rate falling to zero."""
    optimiser = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=_DECAY)
    batches = max(1, len(target_M) // _BATCH)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=epochs * batches)
    module.train()
    for _ in range(epochs):
        order = torch.randperm(len(target_M)).numpy()
        for chosen in np.array_split(order, batches):
            loss = cross_entropy(scores(chosen), torch.from_numpy(target_M[chosen]))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    module.eval()


def _load(parameter: Tensor, values: Float32) -> None:
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(values)))


def _array(tensor: Tensor) -> Float32:
    return np.ascontiguousarray(tensor.detach().numpy())
