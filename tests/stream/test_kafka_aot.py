"""The AOT cache: made once, and never the reason that a start fails."""

import fcntl
import os
from pathlib import Path

import pytest

from stream import kafka_aot
from stream.kafka_aot import QUICK_COMPILER, fast_start_options
from stream.kafka_runtime import KafkaRuntime


def runtime_that_fails(folder: Path) -> KafkaRuntime:
    """Make a runtime whose Java counts its runs and fails."""
    java = folder / "java"
    java.write_text(f"#!/bin/sh\necho run >> {folder}/runs; exit 1\n")
    java.chmod(0o755)
    return KafkaRuntime(java, (), folder / "cache", supports_aot=True)


@pytest.mark.kafka
def test_the_cache_is_made_once_and_then_used(kafka_runtime: KafkaRuntime) -> None:
    options = fast_start_options(kafka_runtime)

    assert options == fast_start_options(kafka_runtime)
    assert any(option.startswith("-XX:AOTCache=") for option in options)


def test_a_failing_training_run_is_not_repeated_and_only_costs_speed(tmp_path: Path) -> None:
    runtime = runtime_that_fails(tmp_path)

    options = [fast_start_options(runtime) for _ in range(3)]

    assert options == [(QUICK_COMPILER,)] * 3
    assert (tmp_path / "runs").read_text() == "run\n"


def test_while_another_process_makes_the_cache_a_start_goes_on_without(tmp_path: Path) -> None:
    runtime = runtime_that_fails(tmp_path)
    fast_start_options(runtime)
    (failed,) = runtime.cache.glob("*.failed")
    failed.unlink()
    (tmp_path / "runs").unlink()

    with failed.with_suffix(".making").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        options = fast_start_options(runtime)

    assert options == (QUICK_COMPILER,)
    assert not (tmp_path / "runs").exists()


def test_only_the_newest_caches_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = runtime_that_fails(tmp_path)
    runtime.cache.mkdir()
    for age in range(5):
        old = runtime.cache / f"old{age}.aot"
        old.touch()
        os.utime(old, (1000 - age, 1000 - age))

    def train(_runtime: KafkaRuntime, scratch: Path) -> Path:
        (scratch / "cache.aot").touch()
        return scratch / "cache.aot"

    monkeypatch.setattr(kafka_aot, "_train", train)
    options = fast_start_options(runtime)

    kept = {path.name for path in runtime.cache.glob("*.aot")}
    assert len(kept) == 3
    assert {"old0.aot", "old1.aot"} < kept
    assert any(name in options[1] for name in kept)


def test_a_jvm_without_aot_caches_gets_none(tmp_path: Path) -> None:
    runtime = KafkaRuntime(Path("java"), (), tmp_path, supports_aot=False)

    assert fast_start_options(runtime) == (QUICK_COMPILER,)
