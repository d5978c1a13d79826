"""Learns from the stream what stands beside the vectors: the latest clicks, and how to rank.

Knows no Kafka, no files and no clock. Shapes: M predictions, R ring, B windows, C candidates,
F features, N items, D dimensions.
"""

from typing import Any, Final

import numpy as np
import structlog
import torch
from torch import Tensor

from index.candidates import CHANNELS, FEATURES, NUM_NEAR, RING, CandidateMaker, Found, Near
from index.click_memory import ClickMemory, Held, ItemFacts, Links
from model.ranker import RankerWeights, linear_scores
from trainer.checkpoint import part
from trainer.ranker_fit import Examples, fit_ranker
from trainer.settings import FusionSettings
from trainer.windows import Int64, Windows

log = structlog.get_logger(__name__)

KEPT: Final = 96  # candidates of an example
_BEST_KEPT: Final = 72
_BLOCK: Final = 256
_NEW_SHARE: Final = 0.1  # of the examples held: fewer new ones would change little
_ALL_CHANNELS: Final = sum(CHANNELS.values())  # what a checkpoint means that names none
_UNKNOWN: Final = -2  # an item without a row: a click of the session all the same


class FusionLearner:
    """The memory of clicks, and examples of what was clicked among which candidates.

    `observe` is told clicks before anything learns them, `remember` afterwards.
    """

    def __init__(self, settings: FusionSettings, *, temperature: float) -> None:
        self.memory = ClickMemory(capacity=settings.max_clicks)
        self.weights: RankerWeights | None = None
        self.channels = settings.channels
        self.max_examples = settings.max_examples
        self._examples = _ExampleBuffer(settings.max_examples)
        self._min_examples = settings.min_examples
        self._maker = CandidateMaker(self.memory, settings.channels)
        self._temperature = temperature

    def remember(self, rows_B: Int64, times_B: Int64, before_B: Int64) -> None:
        """Add clicks to the memory; see `ClickMemory.append`."""
        self.memory.reach(int(rows_B.max(initial=-1)) + 1)
        self.memory.append(rows_B, times_B, before_B)

    def observe(
        self,
        windows: Windows,
        queries_MD: Tensor,
        vectors_ND: Tensor,
        rng: np.random.Generator,
    ) -> None:
        """Keep an example of every target that is among its candidates.

        `queries_MD` are those of the windows' targets, by weights that had not learnt them.
        """
        rings_MR, targets_M = rings_before_targets(windows)
        known = len(vectors_ND)
        num_near = min(NUM_NEAR, known) if self._maker.by_vector else 0
        rings_MR = np.where(rings_MR >= known, _UNKNOWN, rings_MR)
        self.memory.reach(known)
        for start in range(0, len(targets_M), _BLOCK):
            block = slice(start, start + _BLOCK)
            near = _near(queries_MD[block], vectors_ND, self._temperature, num_near)
            found = self._maker.find(rings_MR[block].astype(np.int32), near, session_items=True)
            examples = _examples(found, targets_M[block])
            self._examples.add(_thinned(examples, self.weights, rng))

    def refit(self, *, seed: int) -> bool:
        """Fit the ranker on the examples of late; tells whether there were enough of new ones.

        Weights that are not finite are no start: the gate refuses them, and the next fit mends it.
        """
        enough = self._min_examples
        if self.weights is not None:
            enough = max(enough, round(_NEW_SHARE * len(self._examples)))
        if self._examples.num_new < enough:
            return False
        start = self.weights
        if start is not None and not all(np.isfinite(array).all() for array in start):
            start = None
        self.weights = fit_ranker(self._examples.all(), start=start, seed=seed)
        self._examples.num_new = 0
        return True

    def keep_examples(self, capacity: int) -> None:
        """Have room for so many examples from now on; the latest of those held stay."""
        held, num_new = self._examples.all(), self._examples.num_new
        self.max_examples = capacity
        self._examples = _ExampleBuffer(capacity)
        self._examples.add(held.select(slice(-capacity, None)))
        self._examples.num_new = num_new

    def tensors(self) -> dict[str, Tensor]:
        """Return the content for a checkpoint."""
        state = self.memory.state()
        named = {f"links.{name}": column for name, column in state.links._asdict().items()}
        named |= {f"facts.{name}": column for name, column in state.facts._asdict().items()}
        named["clock"] = np.array([state.num_added, state.newest_ms])
        named["channels"] = np.array([self._maker.on])
        named |= {f"examples.{name}": c for name, c in self._examples.all()._asdict().items()}
        named["num_new"] = np.array([self._examples.num_new])
        if self.weights is not None:
            named |= {f"weights.{name}": a for name, a in self.weights._asdict().items()}
        return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in named.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take over the content of a checkpoint; raises ValueError for one of another capacity.

        Examples and ranker of other channels are left behind: they say nothing of these.
        """
        parts: dict[str, dict[str, Any]] = {
            group: {name: tensor.numpy() for name, tensor in part(tensors, f"{group}.").items()}
            for group in ("links", "facts", "examples", "weights")
        }
        num_added, newest_ms = tensors["clock"].tolist()
        links, facts = Links(**parts["links"]), ItemFacts(**parts["facts"])
        self.memory.restore(Held(links, facts, num_added, newest_ms))
        if int(tensors.get("channels", _ALL_CHANNELS)) != self._maker.on:
            log.warning("the checkpoint's ranker is of other channels", channels=self.channels)
            return
        self._examples.add(Examples(**parts["examples"]))
        self._examples.num_new = int(tensors["num_new"])
        self.weights = RankerWeights(**parts["weights"]) if parts["weights"] else None


def rings_before_targets(windows: Windows) -> tuple[Int64, Int64]:
    """Return the rows before each target [M, R], newest first and padded with -1, and its row."""
    window_M, position_M = np.nonzero(windows.target_mask)
    at_MR = position_M[:, None] - 1 - np.arange(RING)
    rings_MR = windows.rows_BT[window_M[:, None], np.maximum(at_MR, 0)]
    return np.where(at_MR < 0, -1, rings_MR), windows.rows_BT[window_M, position_M]


def _near(queries_BD: Tensor, vectors_ND: Tensor, temperature: float, num: int) -> Near:
    searched_ND = vectors_ND if num else vectors_ND[:0]
    cosines_BM, rows_BM = (queries_BD @ searched_ND.T).topk(num, dim=1)
    return Near(
        *(rows_BM.numpy(), cosines_BM.numpy(), queries_BD.numpy(), vectors_ND.numpy()), temperature
    )


def _examples(found: Found, targets_B: Int64) -> Examples:
    """Keep the sessions whose next click is among the candidates, and whose features are finite."""
    is_target_BC = found.codes_BC == targets_B[:, None]
    finite_B = np.isfinite(found.features_BCF).all(axis=(1, 2))
    reached = is_target_BC.any(axis=1) & finite_B
    return Examples(
        found.features_BCF[reached], found.num_B[reached], is_target_BC[reached].argmax(axis=1)
    )


def _thinned(
    examples: Examples, weights: RankerWeights | None, rng: np.random.Generator
) -> Examples:
    """Keep the target, the best candidates and some of the others: the rest teaches little."""
    features_MCF, num_M, target_M = examples
    num, width = features_MCF.shape[:2]
    outside_MC = np.arange(width) >= num_M[:, None]
    rank_MC = rng.random((num, width))
    if weights is not None:
        linear_MC = linear_scores(weights, features_MCF, num_M)
        best_MT = np.argpartition(-linear_MC, _BEST_KEPT, axis=1)[:, :_BEST_KEPT]
        np.put_along_axis(rank_MC, best_MT, -1.0, axis=1)
    rank_MC[outside_MC] = 2.0
    rank_MC[np.arange(num), target_M] = -2.0
    kept_MC = np.sort(np.argpartition(rank_MC, KEPT, axis=1)[:, :KEPT], axis=1)
    kept_num_M = np.minimum(num_M, KEPT)
    return Examples(
        np.take_along_axis(features_MCF, kept_MC[:, :, None], axis=1).astype(np.float16),
        kept_num_M,
        (kept_MC == target_M[:, None]).argmax(axis=1),
    )


class _ExampleBuffer:
    """The latest examples in float16, bounded."""

    def __init__(self, capacity: int) -> None:
        self._examples = Examples(
            np.zeros((capacity, KEPT, len(FEATURES)), np.float16),
            np.zeros(capacity, np.int64),
            np.zeros(capacity, np.int64),
        )
        self._added = 0
        self.num_new = 0

    def add(self, examples: Examples) -> None:
        """Append; beyond the capacity the oldest leave."""
        capacity = len(self._examples.num_M)
        places_M = (self._added + np.arange(len(examples.num_M))) % capacity
        for column, more in zip(self._examples, examples, strict=True):
            column[places_M] = more
        self._added += len(examples.num_M)
        self.num_new += len(examples.num_M)

    def __len__(self) -> int:
        return min(self._added, len(self._examples.num_M))

    def all(self) -> Examples:
        """Return what is held, oldest first."""
        held = len(self)
        places = np.arange(self._added - held, self._added) % len(self._examples.num_M)
        return self._examples.select(places)
