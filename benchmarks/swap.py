"""What a swap to another version costs the clicks meanwhile, and the process; real Kafka.

    python -m benchmarks.swap --items 1000000 --rate 100 --json

A worker answers clicks at a steady rate (open loop); in the middle a second bundle, with the same
content, is announced. Clicks count as `during` from the announcement until a second after the
worker has taken it, as `apart` before. `append_to_append_ms` is the time from a click's append to
its recommendation's; `pause_ms` the time in which the worker's loop did nothing but swap, from its
own histogram, so it is an upper bound. Resident memory is read four times a second: before, the
most since, and at the end, when the old version is gone.

Caveats: broker, worker, load and reader share the machine, and the second bundle is read, checked
and indexed in a thread of the worker; its content is the same, so it is not learnt from anything.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
import torch

from benchmarks.environment import environment
from benchmarks.latency import click_rows, load_clients
from benchmarks.open_loop import Sent, latencies, percentiles, send_clicks
from benchmarks.options import Help
from benchmarks.serving import (
    GUARANTEES,
    announce_version,
    create,
    fresh_settings,
    scrape,
    worker_process,
)
from benchmarks.world import World
from cli.settings import Settings
from index.threads import use_threads
from model.bundle import Published, load, new_version, publish
from model.store import Store
from stream.local_kafka import LocalKafka
from stream.simulator import Simulator

_WARM_SECONDS: Final = 5
_ANSWER_SECONDS: Final = 120.0
_AFTER_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.25
_SWITCH_SECONDS: Final = 0.0005  # load and reader are threads of one process: neither waits long
_MAX_BYTES: Final = 2**34

Figures = dict[str, Any]


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=100, help="clicks per second")
    parser.add_argument("--seconds", type=int, default=60, help="the swap begins after a third")
    parser.add_argument("--training-clicks", type=int, default=1_000_000)
    parser.add_argument("--guarantee", choices=GUARANTEES, default="at_least_once")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    use_threads(1)
    sys.setswitchinterval(_SWITCH_SECONDS)
    with tempfile.TemporaryDirectory(prefix="nextclick-benchmark-") as folder:
        report = measure(options, Path(folder))
    if options.json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        print(f"{name:24} {value}")


def measure(options: argparse.Namespace, folder: Path) -> Figures:
    """Return the figures of one swap, and what they were measured with."""
    world = World(options.items, options.training_clicks, options.dim, options.seed)
    simulator = world.simulator()
    published = world.version(simulator, folder / "models")
    second = _again(published, folder / "models")
    with LocalKafka(folder / "kafka", fast_start=False) as kafka:
        settings = fresh_settings(
            kafka.bootstrap_servers, "swap", published, guarantee=options.guarantee
        )
        create(settings, published)
        with worker_process(settings, folder / "worker"):
            figures = _swapped(settings, second, simulator, options)
    return figures | {
        "items": options.items,
        "rate": options.rate,
        "seconds": options.seconds,
        "guarantee": options.guarantee,
        "bundle_mib": round(second.num_bytes / 2**20),
        "dim": options.dim,
        "seed": options.seed,
        **environment(),
    }


def _again(published: Published, folder: Path) -> Published:
    """Publish the same content as a later version."""
    bundle = load(published.uri, published.manifest_sha256, max_bytes=_MAX_BYTES)
    manifest = bundle.manifest
    later = new_version(int(time.time() * 1000), "1" * 8, after=manifest.version)
    manifest = msgspec.structs.replace(manifest, version=later)
    return publish(Store(str(folder)), replace(bundle, manifest=manifest))


class Witness:
    """Reads the worker's figures in a thread; announces the second version when it is told to."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._readings: list[tuple[float, dict[str, float]]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness")
        self._thread.start()

    def close(self) -> list[tuple[float, dict[str, float]]]:
        """Stop, and return the readings with their Unix times."""
        self._stop.set()
        self._thread.join(timeout=10)
        return self._readings

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            self._readings.append((time.time(), scrape(self._settings)))


def _swapped(
    settings: Settings, second: Published, simulator: Simulator, options: argparse.Namespace
) -> Figures:
    """Send clicks, announce the second version after a third of them, return what came of it."""
    warm, clicks = (simulator.take(options.rate * n) for n in (_WARM_SECONDS, options.seconds))
    announced: list[float] = []

    def announce() -> None:
        announced.append(time.time())
        announce_version(settings, second)

    with load_clients(settings) as (producer, watcher):
        topic = settings.topics.clicks
        send_clicks(producer, topic, click_rows(warm), options.rate)
        watcher.await_count(len(warm), _ANSWER_SECONDS)
        witness = Witness(settings)
        timer = threading.Timer(options.seconds / 3, announce)
        timer.start()
        sent = send_clicks(producer, topic, click_rows(clicks), options.rate)
        watcher.await_count(len(warm) + len(clicks), _ANSWER_SECONDS)
        timer.join(timeout=_ANSWER_SECONDS)
        readings = witness.close()
        seen = watcher.seen()
    taken = _taken_at(readings, announced[0])
    around = {
        "apart": [click for click in sent if click.appended < announced[0]],
        "during": [click for click in sent if announced[0] <= click.appended <= taken],
    }
    return {
        "load_seconds": round(taken - _AFTER_SECONDS - announced[0], 2),
        **{f"{name}_ms": _milliseconds(some, seen) for name, some in around.items()},
        "clicks": {name: len(some) for name, some in around.items()},
        "pause_ms": _pause_ms(readings),
        **_memory(readings, announced[0]),
    }


def _taken_at(readings: list[tuple[float, dict[str, float]]], announced: float) -> float:
    """Return when the worker had taken the second version, and a second more."""
    for at, metrics in readings:
        if at > announced and metrics["nextclick_model_swap_pause_seconds_count"] > 1:
            return at + _AFTER_SECONDS
    raise TimeoutError("the second version was not taken while clicks were sent: --seconds")


def _milliseconds(sent: list[Sent], seen: Any) -> dict[str, float]:
    return percentiles(latencies(sent, seen).append_to_append)


def _pause_ms(readings: list[tuple[float, dict[str, float]]]) -> float:
    """Return the pause of the second swap: the sum rose by it."""
    name = "nextclick_model_swap_pause_seconds_sum"
    return round(1000 * (readings[-1][1][name] - readings[0][1][name]), 2)


def _memory(readings: list[tuple[float, dict[str, float]]], announced: float) -> Figures:
    """Return resident MiB before the announcement, the most after it, and at the end."""
    resident = [(at, metrics["process_resident_memory_bytes"] / 2**20) for at, metrics in readings]
    before = max(mib for at, mib in resident if at < announced)
    most = max(mib for at, mib in resident if at >= announced)
    return {
        "rss_mib": {
            "before": round(before),
            "most": round(most),
            "end": round(resident[-1][1]),
            "second_bundle": round(most - before),
        }
    }


if __name__ == "__main__":
    main()
