"""Fixtures of the fault tests: the running system, workers as real processes, a steady load."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _load(name: str, path: str) -> ModuleType:
    # Tests cannot import each other: these two files are shared by loading them here again.
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_running = _load("running", "running.py")
_factories = _load("worker_factories", "worker/conftest.py")
make_system, system, start_load = _running.make_system, _running.system, _running.start_load
make_bundle, publish_bundle = _factories.make_bundle, _factories.publish_bundle


class Process:
    """`nextclick worker` as a process of its own."""

    def __init__(self, settings: Any, directory: Path) -> None:
        directory.mkdir()
        config = directory / "nextclick.toml"
        config.write_text(_toml(settings))
        self.log = directory / "worker.log"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("NEXTCLICK_")}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cli", "worker", "--config", str(config)],
                cwd=Path(__file__).parents[2],
                env=environment | {"OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
            )

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def text(self) -> str:
        return self.log.read_text()

    def wait(self, seconds: float) -> int:
        """Wait for the process to end; returns its exit code."""
        return self._process.wait(seconds)

    def kill(self) -> None:
        """End it as a crash would; waits until it is gone."""
        self._process.kill()
        self._process.wait(10)


def _toml(settings: Any) -> str:
    lines = ["[metrics]", "worker_port = 0"]
    for section in ("kafka", "topics", "store"):
        lines.append(f"[{section}]")
        values = getattr(settings, section).model_dump(exclude_unset=True)
        lines += [f"{name} = {value!r}".replace("'", '"') for name, value in values.items()]
    return "\n".join(lines)


@pytest.fixture
def start_process(tmp_path: Path) -> Iterator[Callable[[Any], Process]]:
    """Start a worker process for a system; what still runs at the end is killed."""
    started: list[Process] = []

    def start(system: Any) -> Process:
        started.append(Process(system.settings, tmp_path / f"worker{len(started)}"))
        return started[-1]

    yield start
    for process in started:
        if process.running:
            process.signal(signal.SIGCONT)
            process.kill()


@pytest.fixture
def answered() -> Callable[[Any], int]:
    """Count the clicks below the committed offsets of a system."""
    return lambda system: sum(offset or 0 for offset in system.committed().values())
