"""Fixtures of the fault tests: the running system, workers as real processes, a steady load."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.chaos.nursery import Nursery
from benchmarks.chaos.processes import ROOT, WorkerProcess, end_all, environment
from benchmarks.chaos.system import for_slot
from benchmarks.cluster import BROKERS
from stream.kafka_runtime import KafkaRuntime
from stream.local_kafka import LocalKafka


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


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where worker processes come from: they start without the seconds of their imports."""
    with Nursery() as started:
        yield started


@pytest.fixture(scope="module")
def brokers(
    kafka_runtime: KafkaRuntime, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalKafka]:
    """Three brokers for all tests of a module; each test leaves all of them running, in sync."""
    directory = tmp_path_factory.mktemp("cluster") / "kafka"
    with LocalKafka(directory, brokers=BROKERS, runtime=kafka_runtime) as started:
        yield started


@pytest.fixture
def start_process(tmp_path: Path, nursery: Nursery) -> Iterator[Callable[..., WorkerProcess]]:
    """Start a worker process for a system; what still runs at the end is killed.

    `slot` names it, a `fail_point` (benchmarks/chaos/crashing.py) makes it crash or stall there.
    """
    started: list[WorkerProcess] = []

    def start(system: Any, *, slot: str = "", fail_point: str = "") -> WorkerProcess:
        settings = for_slot(system.settings, slot) if slot else system.settings
        directory = tmp_path / f"worker{len(started)}"
        started.append(WorkerProcess(settings, directory, fail_point=fail_point, spawn=nursery))
        return started[-1]

    yield start
    end_all(started)


_LAUNCHER = """
import os, sys
{script}
from cli.__main__ import main
sys.argv[0] = "nextclick"
main()
"""


@pytest.fixture
def start_with_fault(
    tmp_path: Path,
) -> Iterator[Callable[[Any, str], tuple[WorkerProcess, Callable[[], None]]]]:
    """Start a worker after a script that plants a fault; returns it and what sets the fault off.

    The script replaces a method of the client. The fault is on from when the file is there that the
    environment names as TRIGGER.
    """
    started: list[WorkerProcess] = []
    trigger = tmp_path / "trigger"

    def start(system: Any, script: str) -> tuple[WorkerProcess, Callable[[], None]]:
        launcher = _LAUNCHER.format(script=script)

        def spawn(config: Path, log: Path, fail_point: str) -> subprocess.Popen[bytes]:
            with log.open("wb") as output:
                return subprocess.Popen(
                    [sys.executable, "-c", launcher, "worker", "--config", str(config)],
                    cwd=ROOT,
                    env=environment() | {"TRIGGER": str(trigger)},
                    stdout=output,
                    stderr=output,
                )

        started.append(WorkerProcess(system.settings, tmp_path / "faulty", spawn=spawn))
        return started[-1], trigger.touch

    yield start
    end_all(started)


@pytest.fixture
def answered() -> Callable[[Any], int]:
    """Count the clicks below the committed offsets of a system."""
    return lambda system: sum(offset or 0 for offset in system.committed().values())
