"""A first version from a click log: trained, stored, and saved so that the trainer goes on.

Announces nothing: without Kafka there is nobody to tell.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.bundle import Published, publish
from model.store import Store
from stream.click_log import ClickLog
from trainer import checkpoint, state
from trainer.bootstrap import Advance, Bootstrapped, Plan, bootstrap, choose_dim
from trainer.deltas import Standing
from trainer.evaluate import Score
from trainer.fusion_learner import FusionLearner
from trainer.gate import FIRST, unfit
from trainer.history import History, read_history
from trainer.learner import new_learner
from trainer.publish import Origin, build_bundle
from trainer.settings import TrainerSettings
from trainer.stream_learner import Frozen, StreamLearner
from trainer.windows import cut_sessions, gather

_LEAST_HOLDOUT, _MOST_HOLDOUT = 0.05, 0.2
_HOLDOUT_CLICKS = 3_000  # enough to fit the ranker on


class TrainingFailedError(RuntimeError):
    """Training ended with a model that must not serve."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to train; None chooses by the size of the log, and writes no checkpoint.

    `fusion` learns the ranking, by default a new one.
    """

    dim: int | None = None
    epochs: int | None = None
    negatives: int | None = None
    checkpoint_dir: Path | None = None
    fusion: FusionLearner | None = None


@dataclass(frozen=True, slots=True)
class FirstVersion:
    """The stored version, and what training it took and gave."""

    published: Published
    holdout: Score
    num_items: int
    clicks_learnt: int


def train_first(
    log: ClickLog,
    store: Store,
    settings: TrainerSettings,
    order: Order,
    *,
    now_ms: int,
    report: Callable[[Advance], None],
) -> FirstVersion:
    """Train on a log, store the version and, where asked for, a checkpoint to continue from.

    Raises ValueError for a log without anything to learn, TrainingFailedError for a model that
    the gate refuses.
    """
    history = read_history(
        log,
        gap_ms=int(settings.dataset.idle_gap_minutes * 60_000),
        holdout_share=_holdout_share(len(log)),
        max_items=settings.dataset.max_items,
    )
    settings = _chosen(settings, order, len(log))
    learner = new_learner(settings.learning, seed=settings.seed)
    fusion = order.fusion or _new_fusion(settings, learner.temperature)
    trained = bootstrap(history, learner, fusion, Plan(order.epochs), report)
    published = _store(trained, store, settings, now_ms)
    if order.checkpoint_dir is not None:
        trained.fusion.keep_examples(settings.fusion.max_examples)
        stream = _stream_of(trained, history, settings)
        num_clicks = stream.fusion.memory.num_added
        deltas = Standing(published.manifest.version, num_clicks, num_clicks)
        content = state.capture(stream, state.Position(deltas=deltas))
        checkpoint.write(order.checkpoint_dir, content)
    return FirstVersion(published, trained.holdout, len(learner.items), trained.clicks)


def _new_fusion(settings: TrainerSettings, temperature: float) -> FusionLearner:
    """Return a fusion learner with room for a whole hold-out: what it is fitted on first."""
    many = {"max_examples": settings.fusion.first_examples}
    return FusionLearner(settings.fusion.model_copy(update=many), temperature=temperature)


def _holdout_share(num_clicks: int) -> float:
    share = _HOLDOUT_CLICKS / max(num_clicks, 1)
    return min(_MOST_HOLDOUT, max(_LEAST_HOLDOUT, share))


def _chosen(settings: TrainerSettings, order: Order, num_clicks: int) -> TrainerSettings:
    learning = settings.learning
    changes = {
        "dim": order.dim or choose_dim(num_clicks),
        "negatives": order.negatives or learning.first_negatives,
    }
    return settings.model_copy(update={"learning": learning.model_copy(update=changes)})


def _store(
    trained: Bootstrapped, store: Store, settings: TrainerSettings, now_ms: int
) -> Published:
    learner = trained.learner
    frozen = Frozen(learner.frozen_encoder(), learner.items.unit_vectors())
    defect = unfit(
        frozen.vectors_ND,
        dim=frozen.encoder.dim,
        max_norm_deviation=settings.gate.max_norm_deviation,
    )
    if defect is not None:
        raise TrainingFailedError(f"the trained model is not fit to serve: {defect}")
    origin = Origin(
        name=settings.model,
        created_ms=now_ms,
        verdict=FIRST,
        metrics={
            "recall_at_20": trained.holdout.recall,
            "mrr_at_20": trained.holdout.mrr,
            "predictions": float(trained.holdout.num),
        },
    )
    return publish(
        store,
        build_bundle(
            learner, frozen, trained.recent, origin, fusion=trained.fusion, seed=settings.seed
        ),
    )


def _stream_of(trained: Bootstrapped, history: History, settings: TrainerSettings) -> StreamLearner:
    """Return a stream learner whose replay buffer holds the log's latest windows."""
    stream = StreamLearner(trained.learner, trained.fusion, settings)
    spans = cut_sessions(history.start_S, history.stop_S)
    latest = np.arange(len(spans))[-settings.dataset.replay_windows :]
    stream.replay.add(gather(history.rows_F, spans.select(latest)), trained.learner.rng)
    stream.restore_recent([trained.recent])
    return stream
