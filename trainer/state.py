"""What a stream learner holds, to and from a checkpoint's content; knows no disk and no Kafka."""

import json
from dataclasses import asdict

import msgspec
import numpy as np
import torch
from torch import Tensor

from index.popularity import CountsState
from model.encoders.session_encoder import EncoderConfig
from trainer import checkpoint
from trainer.checkpoint import Content
from trainer.comparison import Comparison
from trainer.dataset import BufferState
from trainer.deltas import Standing
from trainer.drift import DriftWatch
from trainer.fusion_learner import FusionLearner
from trainer.learner import Learner, Progress, new_learner
from trainer.settings import TrainerSettings
from trainer.stream_learner import StreamLearner
from trainer.windows import Windows

_LEARNER, _REPLAY, _RECENT, _FUSION = "learner", "replay", "recent", "fusion"
_STATE, _CATALOGUE, _SESSIONS = "state", "catalogue", "sessions"


class Position(msgspec.Struct, frozen=True):
    """Where the trainer stands in its inputs and outputs when a checkpoint is written."""

    offsets: dict[int, int] = {}  # next click by partition
    clicks_since_publish: int = 0
    extensions: int = 0  # candidates in a row that were undecided
    serving: str | None = None  # the version that the scores compare with
    deltas: Standing | None = None


class _Learning(msgspec.Struct):
    position: Position
    encoder: EncoderConfig
    rng: str
    dense_steps: int
    steps: int
    clicks: int
    clicks_since_halving: int
    refused: int
    counts_reference_ms: int | None
    counted_ms: int
    num_evaluated_items: int
    comparison: Comparison
    applicants: dict[str, int]
    drift: DriftWatch = msgspec.field(default_factory=DriftWatch)


def capture(stream: StreamLearner, position: Position) -> Content:
    """Return everything that the next click depends on."""
    learner = stream.learner
    learning = _Learning(
        position=position,
        encoder=learner.encoder.config,
        rng=json.dumps(learner.rng.bit_generator.state),
        dense_steps=learner.dense.num_steps,
        **asdict(learner.progress),
        counts_reference_ms=learner.items.counts_state().reference_ms,
        counted_ms=learner.items.counted_ms,
        num_evaluated_items=stream.num_evaluated_items,
        comparison=stream.comparison,
        applicants=stream.admission.state(),
        drift=stream.drift,
    )
    recent = stream.recent_windows()
    return Content(
        tensors={
            _LEARNER: _learner_tensors(learner),
            _REPLAY: stream.replay.tensors(),
            _RECENT: {
                "rows": torch.from_numpy(recent.rows_BT),
                "lengths": torch.from_numpy(recent.lengths_B),
                "first": torch.from_numpy(recent.first_B),
                "sizes": torch.tensor([len(part) for part in stream.recent]),
                "waiting": torch.from_numpy(stream.clicks_waiting()),
            },
            _FUSION: stream.fusion.tensors(),
        },
        documents={
            _STATE: msgspec.json.encode(learning),
            _CATALOGUE: msgspec.json.encode(list(learner.items.ids)),
            _SESSIONS: msgspec.json.encode(stream.sessions.state()),
        },
    )


def restore(content: Content, settings: TrainerSettings) -> tuple[StreamLearner, Position]:
    """Return the stream learner of a checkpoint, its encoder as it was there."""
    learning = msgspec.json.decode(content.documents[_STATE], type=_Learning)
    learner = new_learner(settings.learning, seed=settings.seed, config=learning.encoder)
    ids = msgspec.json.decode(content.documents[_CATALOGUE], type=list[str])
    _restore_learner(learner, content.tensors[_LEARNER], ids, learning)
    fusion = FusionLearner(settings.fusion, temperature=learner.temperature)
    fusion.restore(content.tensors[_FUSION])
    stream = StreamLearner(learner, fusion, settings)
    stream.sessions.restore(msgspec.json.decode(content.documents[_SESSIONS], type=BufferState))
    stream.admission.restore(learning.applicants)
    stream.replay.restore(content.tensors[_REPLAY])
    _restore_recent(stream, content.tensors[_RECENT])
    stream.num_evaluated_items = learning.num_evaluated_items
    stream.comparison = learning.comparison
    stream.drift = learning.drift
    return stream, learning.position


def _learner_tensors(learner: Learner) -> dict[str, Tensor]:
    tensors = {
        "items": learner.items.weights_ND.clone(),
        "accumulators": learner.items.accumulators_N.clone(),
        "counts": torch.from_numpy(learner.items.counts_state().weights_N),
        "sampling_counts": learner.sampling_counts_N,
    }
    for name, weight in learner.encoder.state_dict().items():
        tensors[f"encoder.{name}"] = weight.clone()
    for name, column in learner.dense.tensors().items():
        tensors[f"adam.{name}"] = column
    return tensors


def _restore_learner(
    learner: Learner, tensors: dict[str, Tensor], ids: list[str], learning: _Learning
) -> None:
    learner.items.append(ids, tensors["items"])
    learner.items.accumulators_N.copy_(tensors["accumulators"])
    learner.items.restore_counts(
        CountsState(tensors["counts"].numpy(), learning.counts_reference_ms, learning.counted_ms)
    )
    learner.sample_by(tensors["sampling_counts"])
    learner.encoder.load_state_dict(checkpoint.part(tensors, "encoder."))
    learner.dense.restore(checkpoint.part(tensors, "adam."), learning.dense_steps)
    learner.rng.bit_generator.state = json.loads(learning.rng)
    learner.progress = Progress(
        learning.steps, learning.clicks, learning.clicks_since_halving, learning.refused
    )


def _restore_recent(stream: StreamLearner, tensors: dict[str, Tensor]) -> None:
    joined = Windows(*(tensors[name].numpy() for name in ("rows", "lengths", "first")))
    edges = np.cumsum(tensors["sizes"].numpy())
    parts = np.split(np.arange(len(joined)), edges[:-1] if len(edges) else [])
    stream.restore_recent(joined.select(indices) for indices in parts if len(indices))
    stream.restore_clicks_waiting(tensors["waiting"].numpy())
