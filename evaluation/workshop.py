"""Where a log's versions are made and loaded, as trainer and worker do it; knows no figure."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from evaluation.recorded import Recorded
from index.candidates import RING
from model.store import Store
from stream.messages import ModelAnnouncement
from trainer.bootstrap import Advance
from trainer.first import FirstVersion, Order, train_first
from trainer.settings import TrainerSettings
from worker.loader import VersionLoader
from worker.version import ServingVersion

_MINUTE_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Reign:
    """A version, and the clicks from `start` to before `stop` that it answers."""

    start: int
    stop: int
    version: ServingVersion


class Workshop:
    """A folder with a store and checkpoints, made for one evaluation.

    The settings are the trainer's own but for three: a session ends where the log ends it, not
    after a pause, no checkpoint is written while the stream is learnt, and no version is tried by
    some users first.
    """

    def __init__(self, folder: Path, recorded: Recorded, settings: TrainerSettings, k: int) -> None:
        url = str(folder / "models")
        span_minutes = int(recorded.time_F[-1] - recorded.time_F[0]) / _MINUTE_MS + 1
        dataset = settings.dataset.model_copy(update={"idle_gap_minutes": span_minutes})
        self.settings = settings.model_copy(
            update={
                "dataset": dataset,
                "checkpoint_dir": folder / "checkpoints",
                "checkpoint_seconds": math.inf,
                "gate": settings.gate.model_copy(update={"canary_share": 0.0}),
            }
        )
        self.store = Store(url)
        self._bundle: ServingVersion | None = None
        self._load = VersionLoader(
            url, max_bytes=settings.max_model_bytes, num_popular=k + RING + 1
        )

    def first(self, recorded: Recorded, report: Callable[[Advance], None]) -> FirstVersion:
        """Train a first version on the clicks before the split, as `nextclick train` does."""
        return train_first(
            recorded.history(),
            self.store,
            self.settings,
            Order(checkpoint_dir=self.settings.checkpoint_dir),
            now_ms=recorded.split_ms,
            report=report,
        )

    def load(self, announced: ModelAnnouncement) -> ServingVersion:
        """Load a version as a worker does when it is announced, a delta with the last bundle."""
        if announced.kind == "delta":
            return self._load(announced, self._bundle)
        self._bundle = self._load(announced)
        return self._bundle
