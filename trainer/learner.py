"""One learning step: windows in, moved weights out; knows no Kafka, no clock and no files.

Shapes: B windows, T items, M targets, U rows of one step, C candidates, N items, D dimensions.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from model.encoders.families import build_encoder
from model.encoders.session_encoder import EncoderConfig, SessionEncoder
from trainer.item_table import ItemTable
from trainer.loss import (
    NegativeSampler,
    bpr_max_loss,
    hardest_loss,
    softmax_loss,
    unique_rows,
)
from trainer.optimiser import Adam, RowwiseAdagrad
from trainer.settings import LearningSettings
from trainer.windows import Int64, Windows

_LENGTH_EDGES = (4, 8, 16)  # windows of similar length share one padded encoder call
_FULL_STEP = 1024  # targets
_SAMPLER_STEPS = 8  # steps between two readings of the counts: O(items) each


@dataclass(frozen=True, slots=True)
class Step:
    """What one learning step did; a refused step changed no weight."""

    loss: float
    num_targets: int
    refused: Literal["loss", "gradient"] | None = None
    drifted: bool = False


@dataclass
class Progress:
    """Counters of a learner; they continue after a restart."""

    steps: int = 0
    clicks: int = 0
    clicks_since_halving: int = 0
    refused: int = 0


class Learner:
    """Encoder, item table and both optimisers; all randomness comes from one generator."""

    def __init__(
        self,
        encoder: SessionEncoder,
        items: ItemTable,
        settings: LearningSettings,
        rng: np.random.Generator,
    ) -> None:
        self.encoder = encoder
        self.items = items
        self.rng = rng
        self.progress = Progress()
        self.dense = Adam(encoder.parameters(), settings.dense_rate)
        self.sampling_counts_N = torch.zeros(0, dtype=torch.float64)
        self._settings = settings
        self._adagrad = RowwiseAdagrad(settings.item_rate)
        self._sampler: NegativeSampler | None = None
        self._inverse = torch.zeros(0, dtype=torch.int64)

    @property
    def temperature(self) -> float:
        """The factor on cosine scores, part of every published version."""
        return self._settings.temperature

    def admit(self, item_id: str, beside: Sequence[int]) -> int:
        """Append an item that was clicked after the items in rows `beside`; return its row."""
        self.items.append([item_id], self.items.newcomer(beside, self.rng)[None])
        return len(self.items) - 1

    def sample_by(self, counts_N: Tensor) -> None:
        """Draw negatives by these counts until the next reading."""
        self.sampling_counts_N = counts_N.double().clone()
        self._sampler = None

    def learn(self, windows: Windows, *, rate: float = 1.0, follow_counts: bool = True) -> Step:
        """Learn every target of the windows once, with `rate` times the learning rates."""
        if follow_counts and self.progress.steps % _SAMPLER_STEPS == 0:
            self.sample_by(self.items.counts_N)
        self.progress.steps += 1
        with torch.random.fork_rng(devices=[]):
            # One seed per step instead of a generator state: a checkpoint keeps only `self.rng`.
            torch.manual_seed(int(self.rng.integers(2**62)))
            return self._step(_by_length(windows), rate)

    def _step(self, parts: list[Windows], rate: float) -> Step:
        targets_M = torch.from_numpy(np.concatenate([part.target_rows for part in parts]))
        candidates_C, log_inclusion_C = self._candidates(targets_M)
        inputs = [torch.from_numpy(part.rows_BT[:, :-1]) for part in parts]
        rows_U = unique_rows(len(self.items), candidates_C, *inputs)
        leaf_UD = self.items.weights_ND[rows_U].requires_grad_()
        unit_UD = normalize(leaf_UD, dim=1)
        place_N = self._places(rows_U)
        self.encoder.train()
        queries_MD = torch.cat(
            [
                _target_queries(self.encoder, unit_UD[place_N[rows_BT]], part)
                for rows_BT, part in zip(inputs, parts, strict=True)
            ]
        )
        items_CD = unit_UD if len(rows_U) == len(candidates_C) else unit_UD[place_N[candidates_C]]
        positions_M = self._places(candidates_C)[targets_M]
        loss = self._loss(queries_MD, items_CD, positions_M, log_inclusion_C)
        return self._apply(loss, leaf_UD, rows_U, len(targets_M), rate)

    def _loss(
        self,
        queries_MD: Tensor,
        items_CD: Tensor,
        positions_M: Tensor,
        log_inclusion_C: Tensor | None,
    ) -> Tensor:
        settings, sigma = self._settings, self._settings.temperature
        scored = queries_MD, items_CD, positions_M
        if settings.loss == "bpr_max":
            loss = bpr_max_loss(*scored, temperature=sigma, regularisation=settings.bpreg)
        else:
            loss = softmax_loss(*scored, temperature=sigma, log_inclusion_C=log_inclusion_C)
        if settings.hard_negatives:
            loss = loss + hardest_loss(*scored, temperature=sigma, num=settings.hard_negatives)
        return loss

    def _apply(
        self, loss: Tensor, leaf_UD: Tensor, rows_U: Tensor, num_targets: int, rate: float
    ) -> Step:
        """Move the weights, unless the loss or a gradient is not fit for it."""
        self.dense.clear()
        loss.backward()  # type: ignore[no-untyped-call]
        value = float(loss.detach())
        if not np.isfinite(value):
            return self._refuse(value, num_targets, "loss")
        norm = nn.utils.clip_grad_norm_(self.encoder.parameters(), self._settings.clip_norm)
        assert leaf_UD.grad is not None
        if not (float(norm) <= self._settings.max_gradient_norm and leaf_UD.grad.isfinite().all()):
            return self._refuse(value, num_targets, "gradient")
        # A step of Adam is as long whatever the batch: few clicks must not move the encoder as far.
        self.dense.step(rate=rate * min(1.0, num_targets / _FULL_STEP))
        # The loss is a mean; this factor makes a row's step independent of the batch size.
        gradient_UD = leaf_UD.grad * num_targets**0.5
        self._adagrad.step(
            self.items.weights_ND, self.items.accumulators_N, rows_U, gradient_UD, rate=rate
        )
        self._advance(num_targets)
        return Step(value, num_targets)

    def _refuse(self, loss: float, num_targets: int, reason: Literal["loss", "gradient"]) -> Step:
        self.progress.refused += 1
        return Step(loss, num_targets, reason)

    def _advance(self, num_targets: int) -> None:
        self.progress.clicks += num_targets
        self.progress.clicks_since_halving += num_targets
        if self.progress.clicks_since_halving >= self._settings.accumulator_halving_clicks:
            self.items.accumulators_N.mul_(0.5)
            self.progress.clicks_since_halving = 0

    def _candidates(self, targets_M: Tensor) -> tuple[Tensor, Tensor | None]:
        num_items, num_drawn = len(self.items), self._settings.negatives
        if num_items <= self._settings.full_softmax_items:
            return torch.arange(num_items), None
        sampler = self._current_sampler()
        candidates_C = unique_rows(num_items, targets_M, sampler.draw(num_drawn))
        return candidates_C, sampler.log_inclusion(
            candidates_C, num_targets=len(targets_M), num_drawn=num_drawn
        )

    def _current_sampler(self) -> NegativeSampler:
        missing = len(self.items) - len(self.sampling_counts_N)
        if missing:  # items admitted since the last reading count as not yet clicked
            self.sampling_counts_N = pad(self.sampling_counts_N, (0, missing))
            self._sampler = None
        if self._sampler is None:
            self._sampler = NegativeSampler(self.sampling_counts_N)
        return self._sampler

    def _places(self, rows_U: Tensor) -> Tensor:
        """Map item rows to their place in `rows_U`; other entries are left over and unread."""
        if len(self._inverse) < len(self.items):
            self._inverse = torch.zeros(2 * len(self.items), dtype=torch.int64)
        self._inverse[rows_U] = torch.arange(len(rows_U))
        return self._inverse

    def frozen_encoder(self) -> SessionEncoder:
        """Return a copy of the encoder for serving."""
        return copy.deepcopy(self.encoder).eval().requires_grad_(False)


def new_learner(
    settings: LearningSettings, *, seed: int, config: EncoderConfig | None = None
) -> Learner:
    """Return a learner without items, its encoder as in `config` or else as in the settings."""
    if config is None:
        config = EncoderConfig(
            family=settings.family,
            dim=settings.dim,
            dropout=settings.dropout,
            window=settings.window,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_encoder(config)
    items = ItemTable(config.dim, count_half_life_ms=settings.count_half_life_hours * 3_600_000)
    return Learner(encoder, items, settings, np.random.default_rng(seed))


def queries(encoder: SessionEncoder, vectors_ND: Tensor, windows: Windows) -> Tensor:
    """Return the unit query for every target of the windows, without dropout.

    Rows beyond `vectors_ND` are items that this version does not know; they read as zero vectors.
    """
    num_items = len(vectors_ND)
    encoder.eval()
    rows_BT = torch.from_numpy(windows.rows_BT[:, :-1])
    with torch.no_grad():
        x_BTD = vectors_ND[rows_BT.clamp(max=num_items - 1)]
        x_BTD = x_BTD * (rows_BT < num_items).unsqueeze(2)
        return _target_queries(encoder, x_BTD, windows)


def _target_queries(encoder: SessionEncoder, x_BTD: Tensor, windows: Windows) -> Tensor:
    lengths_B = torch.from_numpy(windows.lengths_B - 1)
    queries_BTD: Tensor = encoder(x_BTD, lengths_B)
    return queries_BTD[torch.from_numpy(windows.target_mask[:, 1:])]


def _by_length(windows: Windows) -> list[Windows]:
    """Split windows into groups of similar length, so that little of a batch is padding."""
    group_B: Int64 = np.searchsorted(_LENGTH_EDGES, windows.lengths_B)
    groups = [np.flatnonzero(group_B == group) for group in range(len(_LENGTH_EDGES) + 1)]
    return [windows.select(indices) for indices in groups if len(indices)]
