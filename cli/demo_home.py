"""The demo's own directory: what lies where in it, and who may use it; knows no Kafka client."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class DemoBusyError(RuntimeError):
    """Another demo, or a `verify` of its data, uses the directory."""


@dataclass(frozen=True)
class DemoHome:
    """Files of one demo run; they stay until the next one, so that they can be looked at."""

    root: Path

    @property
    def kafka(self) -> Path:
        """Data of the demo's own broker; absent when it used another one."""
        return self.root / "kafka"

    @property
    def config(self) -> Path:
        """Settings of the run: every command takes them with --config."""
        return self.root / "nextclick.toml"

    @property
    def models(self) -> Path:
        """The model store."""
        return self.root / "models"

    @property
    def checkpoints(self) -> Path:
        """The trainer's checkpoints."""
        return self.root / "checkpoints"

    def log(self, role: str) -> Path:
        """Return the file that a role's process writes to."""
        return self.root / f"{role}.log"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the directory; raise DemoBusyError while another process does."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DemoBusyError(f"another demo is using {self.root}") from error
            yield

    def wipe(self) -> None:
        """Remove what an earlier run left, and nothing else."""
        from stream.local_kafka import wipe

        wipe(self.kafka)
        for folder in (self.models, self.checkpoints):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.config, self.log("worker"), self.log("trainer")):
            file.unlink(missing_ok=True)


def default_home() -> DemoHome:
    """Return the directory in the user's state folder."""
    from stream.background_kafka import state_directory

    return DemoHome(state_directory().with_name("demo").resolve())
