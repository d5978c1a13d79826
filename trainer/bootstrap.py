"""Train a first model from a click log; knows no Kafka, no files and no clock.

The latest sessions are held out, measured, and then learnt as the stream would learn them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.covisitation_start import covisitation_start
from trainer.evaluate import Score, score, target_ranks, thin
from trainer.fusion_learner import FusionLearner
from trainer.history import History
from trainer.holdout import learn_holdout
from trainer.learner import Learner, queries
from trainer.windows import (
    Int64,
    Spans,
    Windows,
    batches_by_length,
    concatenate,
    cut_sessions,
    gather,
)

Float64 = NDArray[np.float64]

_PASS_CLICKS = 1_750_000  # epochs are chosen so that about this many clicks are learnt in all
_MIN_EPOCHS, _MAX_EPOCHS = 3, 10
# How often a session is learnt halves with this part of the log's time, down to the floor: older
# ones say less of what comes, and leaving them out of most epochs saves more than half the time.
_HALF_LIFE_SHARE = 0.3
_LEAST_CHANCE = 0.1
_FEW_CLICKS = 100_000  # fewer are learnt whole in every epoch
_WIDE_FROM_CLICKS = 50_000
_MAX_HOLDOUT_PREDICTIONS = 10_000
_MAX_RECENT_TARGETS = 5_000
_LAST_RATE = 0.02
_STARTED_SUM = 0.003  # squared gradients of about three targets
_STEADY_SHARE = 1 / 3  # part of all steps at the full rate; it falls linearly afterwards


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to train; None chooses the epochs by the size of the log."""

    epochs: int | None = None
    batch_targets: int = 1024


@dataclass(frozen=True, slots=True)
class Advance:
    """Where a training run stands, for a progress bar."""

    epoch: int
    clicks: int
    total_clicks: int
    loss: float


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """A trained learner, its score on sessions it had not seen, and its latest windows."""

    learner: Learner
    fusion: FusionLearner
    holdout: Score
    recent: Windows
    clicks: int
    refused_steps: int


def choose_epochs(epoch_targets: float) -> int:
    """Return epochs for a log by the clicks of one: many for a small log, few for a large one."""
    return int(np.clip(round(_PASS_CLICKS / max(epoch_targets, 1)), _MIN_EPOCHS, _MAX_EPOCHS))


def choose_dim(num_clicks: int) -> int:
    """Return the vector size for a log."""
    return 128 if num_clicks >= _WIDE_FROM_CLICKS else 64


def bootstrap(
    history: History,
    learner: Learner,
    fusion: FusionLearner,
    plan: Plan,
    report: Callable[[Advance], None],
) -> Bootstrapped:
    """Train `learner` on a log in numbered steps; raises ValueError when nothing can be learnt.

    1. Learn all but the latest sessions for some epochs.  2. Measure on the latest sessions.
    3. Learn those once, part by part, and fit the ranker on what was predicted of each before.
    4. Set the counts as of the log's end.
    """
    spans = cut_sessions(history.start_S, history.stop_S)
    held_out = spans.start_B >= history.num_known_clicks
    known, holdout = spans.select(~held_out), spans.select(held_out)
    if not len(known):
        raise ValueError("the click log has no session of two clicks to learn from")
    _add_known_items(history, learner)
    _learn_epochs(history, known, learner, plan, report)
    measured = _measure(learner, gather(history.rows_F, holdout))
    learn_holdout(history, learner, fusion, batch_targets=plan.batch_targets)
    _set_counts(history, learner)
    return Bootstrapped(
        learner,
        fusion,
        measured,
        recent=_latest(history.rows_F, spans),
        clicks=learner.progress.clicks,
        refused_steps=learner.progress.refused,
    )


def _add_known_items(history: History, learner: Learner) -> None:
    num_items = history.num_known_items
    clicked_F = history.rows_F[: history.num_known_clicks]
    start_ND = covisitation_start(
        clicked_F,
        history.start_S[: history.holdout_from],
        num_items,
        learner.encoder.dim,
        learner.rng,
    )
    learner.items.append(history.item_ids[:num_items], torch.from_numpy(start_ND))
    # Adagrad's first step would move a row by half its length and undo where it starts.
    learner.items.accumulators_N.fill_(_STARTED_SUM)


def _learn_epochs(
    history: History,
    spans: Spans,
    learner: Learner,
    plan: Plan,
    report: Callable[[Advance], None],
) -> None:
    least = max(_LEAST_CHANCE, min(1.0, _FEW_CLICKS / max(spans.num_targets, 1)))
    chance_B = _chances(history.times_F[spans.start_B], least=least)
    learner.sample_by(_expected_targets(history.rows_F, spans, chance_B, len(learner.items)))
    epoch_targets = float(chance_B @ (spans.stop_B - spans.target_B))
    epochs = plan.epochs or choose_epochs(epoch_targets)
    total = max(1, round(epochs * epoch_targets))
    done = 0
    for epoch in range(1, epochs + 1):
        chosen = spans.select(learner.rng.random(len(spans)) < chance_B)
        for batch_B in batches_by_length(chosen, plan.batch_targets, learner.rng):
            windows = gather(history.rows_F, chosen.select(batch_B))
            step = learner.learn(windows, rate=_rate(done / total), follow_counts=False)
            done += step.num_targets
            report(Advance(epoch, min(done, total), total, step.loss))


def _chances(times_B: Int64, *, least: float) -> Float64:
    """Return how likely an epoch learns a session that began at this time."""
    age_B = times_B.max() - times_B
    half_life = max(_HALF_LIFE_SHARE * float(age_B.max()), 1.0)
    chance_B: Float64 = np.maximum(0.5 ** (age_B / half_life), least)
    return chance_B


def _expected_targets(rows_F: Int64, spans: Spans, chance_B: Float64, num_items: int) -> Tensor:
    """Return how often an epoch learns each item as a target: what logQ corrects for."""
    targets_B = spans.stop_B - spans.target_B
    first_B = spans.target_B - (np.cumsum(targets_B) - targets_B)
    position_M = np.repeat(first_B, targets_B) + np.arange(targets_B.sum())
    weight_M = np.repeat(chance_B, targets_B)
    return torch.from_numpy(np.bincount(rows_F[position_M], weight_M, minlength=num_items))


def _rate(part_done: float) -> float:
    return max(_LAST_RATE, min(1.0, (1 - part_done) / (1 - _STEADY_SHARE)))


def _measure(learner: Learner, windows: Windows) -> Score:
    sample = thin(windows, _MAX_HOLDOUT_PREDICTIONS)
    if not len(sample):
        return Score()
    vectors_ND = learner.items.unit_vectors()
    queries_MD = queries(learner.encoder, vectors_ND, sample)
    return score(target_ranks(queries_MD, vectors_ND, sample.target_rows))


def _set_counts(history: History, learner: Learner) -> None:
    """Count every click, decayed to the end of the log."""
    end_ms = int(history.times_F.max())
    age_F = (end_ms - history.times_F) / learner.items.half_life_ms
    counts_N = np.bincount(history.rows_F, 0.5**age_F, minlength=len(learner.items))
    learner.items.set_counts(torch.from_numpy(counts_N), end_ms)
    learner.sample_by(learner.items.counts_N)


def _latest(rows_F: np.ndarray[tuple[int], np.dtype[np.int64]], spans: Spans) -> Windows:
    """Return the latest windows, for the index plan, golden sessions and first replays."""
    targets_B = (spans.stop_B - spans.target_B)[::-1]
    keep = int(np.searchsorted(np.cumsum(targets_B), _MAX_RECENT_TARGETS)) + 1
    return concatenate([gather(rows_F, spans.select(np.arange(len(spans))[-keep:]))])
