"""Fixtures of the fault tests: the running system, workers as real processes, a steady load."""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
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
make_system, system = _running.make_system, _running.system
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


class Load:
    """Clicks of random users at a steady pace, from a thread, until `stop`."""

    def __init__(self, system: Any, *, seed: int, per_second: int = 400) -> None:
        self._system = system
        self._rng = np.random.default_rng(seed)
        self._per_tick = max(1, per_second // 50)
        self._stop = threading.Event()
        self.sent = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            for user, item in self._rng.integers((60, 220), size=(self._per_tick, 2)).tolist():
                self._system.click(f"u{user}", f"i{item}")
                self.sent += 1

    def stop(self) -> int:
        """Stop and return how many clicks were sent; every one is acknowledged."""
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join(10)
            self._system.flush()
        return self.sent


def _toml(settings: Any) -> str:
    lines = ["[metrics]", "worker_port = 0"]
    for section in ("kafka", "topics"):
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
def start_load() -> Iterator[Callable[..., Load]]:
    """Start publishing clicks to a system."""
    started: list[Load] = []

    def start(system: Any, **options: Any) -> Load:
        started.append(Load(system, **options))
        return started[-1]

    yield start
    for load in started:
        load.stop()


@pytest.fixture
def answered() -> Callable[[Any], int]:
    """Count the clicks below the committed offsets of a system."""
    return lambda system: sum(offset or 0 for offset in system.committed().values())
