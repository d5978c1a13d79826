"""Where a trainer begins: its checkpoint, else the version that serves, else nothing at all."""

import copy

import structlog
import torch

from index.candidates import FEATURES
from index.click_memory import Columns
from model.bundle import Bundle, BundleError, load
from stream.messages import ModelAnnouncement
from trainer import checkpoint, state
from trainer.fusion_learner import FusionLearner
from trainer.learner import Learner, new_learner
from trainer.settings import TrainerSettings
from trainer.stream_learner import Frozen, StreamLearner

log = structlog.get_logger(__name__)

# A bundle carries no Adagrad sums. This is about their median after a bootstrap: with none at all
# the first step would throw every row as far as the learning rate allows.
_WARM_ACCUMULATOR = 0.01


def begin(
    settings: TrainerSettings, serving: Bundle | None
) -> tuple[StreamLearner, state.Position]:
    """Return the stream learner to go on with and its position; raises CheckpointError."""
    content = checkpoint.read_latest(settings.checkpoint_dir)
    if content is not None:
        log.info("continuing from the checkpoint", folder=str(settings.checkpoint_dir))
        stream, position = state.restore(content, settings)
        _warn_of_other_settings(stream.learner, settings)
        return stream, position
    if serving is not None:
        log.info("continuing from a version", version=serving.manifest.version)
        learner = _learner_of(serving, settings)
        _warn_of_other_settings(learner, settings)
        return StreamLearner(learner, _fusion_of(serving, settings), settings), state.Position()
    log.info("starting an empty model")
    learner = new_learner(settings.learning, seed=settings.seed)
    fusion = FusionLearner(settings.fusion, temperature=learner.temperature)
    return StreamLearner(learner, fusion, settings), state.Position()


def read_version(found: ModelAnnouncement, max_bytes: int) -> Bundle | None:
    """Return an announced version, None when it is damaged.

    Raises ConnectionError when its files cannot be read: without it the next version would be
    published unjudged, as if it were the first.
    """
    try:
        return load(found.uri, found.manifest_sha256, max_bytes=max_bytes)
    except BundleError as error:
        if error.reason == "missing":
            raise ConnectionError(f"version {found.version} serves, but {error}") from error
        log.error("the announced version cannot be read", version=found.version, error=str(error))
        return None


def comparable(stream: StreamLearner, serving: Bundle) -> Frozen | None:
    """Return the serving version for comparison, None when its rows mean other items."""
    ids = stream.learner.items.ids
    if list(serving.catalogue.ids) != list(ids[: len(serving.catalogue)]):
        log.warning("the serving version has other rows", version=serving.manifest.version)
        return None
    return Frozen(copy.deepcopy(serving.encoder).eval(), torch.from_numpy(serving.vectors_ND))


def _warn_of_other_settings(learner: Learner, settings: TrainerSettings) -> None:
    """Say which settings have no effect: an encoder is what it was begun as."""
    for name in ("family", "dim", "window"):
        has, wanted = getattr(learner.encoder.config, name), getattr(settings.learning, name)
        if has != wanted:
            log.warning(
                "a model that was begun keeps its encoder: train a new one to change it",
                setting=f"trainer.learning.{name}",
                settings=wanted,
                model=has,
            )


def _learner_of(bundle: Bundle, settings: TrainerSettings) -> Learner:
    """Return a learner that continues a version, without its optimisers' history."""
    manifest = bundle.manifest
    learner = new_learner(settings.learning, seed=settings.seed, config=manifest.encoder)
    learner.encoder.load_state_dict(bundle.encoder.state_dict())
    learner.items.append(bundle.catalogue.ids, torch.from_numpy(bundle.vectors_ND))
    learner.items.accumulators_N.fill_(_WARM_ACCUMULATOR)
    counts_N = torch.from_numpy(bundle.popularity_N).double()
    learner.items.set_counts(counts_N, manifest.created_at)
    learner.sample_by(counts_N)
    return learner


def _fusion_of(bundle: Bundle, settings: TrainerSettings) -> FusionLearner:
    """Return a fusion learner that continues a version, without its examples."""
    fusion = FusionLearner(settings.fusion, temperature=settings.learning.temperature)
    fusion.memory.reach(len(bundle.catalogue))
    fusion.memory.extend(Columns(*bundle.clicks))
    if (bundle.manifest.features, bundle.manifest.channels) == (FEATURES, fusion.channels):
        fusion.weights = bundle.ranker
    return fusion
