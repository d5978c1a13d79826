"""CPU time per click of the worker: clicks waiting in a real topic, drained at full speed.

    python -m benchmarks.worker --items 100000 --json
    python -m benchmarks.worker --items 100000 --channels rnn --guarantee both --rounds 3 --json

`full` is the default list, of all channels in the learnt order, and made diverse on top of it;
`rnn` the search by vector alone.

A model is trained on simulated clicks first, so that queries are those of real sessions. Clicks,
recommendations and changelog go through a real local broker, compiled fully (no quick start).
Figures are differences between two scrapes of the worker's own /metrics, the first after a fifth of
the clicks. With `both` the same clicks are drained under one guarantee and then the other, each
with topics, group and process of its own; figures are those of the round with the median CPU time,
the ratio is the median of those within a round. Caveats: broker and worker share the machine; the
version has learnt its clicks once, about ten per item by default, and with far fewer the lists must
read many more rows; items that no simulated click of the training period touched get vectors near
those of trained items; stages are wall time of the main thread (`commit` waits for the broker),
while `cpu_us_per_click` is CPU time of the whole process.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median, median_low
from typing import Any

import torch

from benchmarks.environment import environment
from benchmarks.options import Help
from benchmarks.serving import (
    GUARANTEES,
    chosen_guarantees,
    create,
    fresh_settings,
    load_clicks,
    scrape,
    worker_process,
)
from benchmarks.world import World
from cli.settings import Settings
from index.features import CHANNELS
from index.threads import use_threads
from model.bundle import Published
from stream.local_kafka import LocalKafka
from stream.simulator import SimulatedClicks
from worker.metrics import STAGES

_WARM_SHARE = 0.2
_DRAIN_SECONDS = 600.0
_RECALL_SAMPLE = 0.05
_SCRAPE_SECONDS = 0.5  # a scrape costs the worker 10 ms of CPU
_CHANNELS = {"rnn": ("rnn",), "full": tuple(CHANNELS)}

Figures = dict[str, Any]


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--clicks", type=int, default=60_000, help="clicks to drain")
    parser.add_argument("--training-clicks", type=int, default=1_000_000)
    parser.add_argument("--channels", choices=tuple(_CHANNELS), default="full")
    parser.add_argument("--diversity", type=float, default=0.2, help="of full lists; 0 is off")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guarantee", choices=(*GUARANTEES, "both"), default="at_least_once")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is drained")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    use_threads(1)
    with tempfile.TemporaryDirectory(prefix="nextclick-benchmark-") as folder:
        report = measure(options, Path(folder))
    if options.json:
        print(json.dumps(report))
        return
    for name, value in _lines(report):
        print(f"{name:32} {value}")


def measure(options: argparse.Namespace, folder: Path) -> Figures:
    """Return the figures and what they were measured with."""
    channels = _CHANNELS[options.channels]
    world = World(options.items, options.training_clicks, options.dim, options.seed, channels)
    simulator = world.simulator()
    published = world.version(simulator, folder / "models")
    clicks = simulator.take(options.clicks)
    guarantees = chosen_guarantees(options.guarantee)
    with LocalKafka(folder / "kafka", fast_start=False) as kafka:
        rounds = [
            {
                guarantee: _drained(
                    fresh_settings(
                        *(kafka.bootstrap_servers, f"round{number}-{guarantee}", published),
                        guarantee=guarantee,
                        worker=_worker_settings(options),
                    ),
                    *(published, clicks, folder),
                )
                for guarantee in guarantees
            }
            for number in range(options.rounds)
        ]
    return summary(rounds) | {
        "guarantee": options.guarantee,
        "rounds": options.rounds,
        "channels": options.channels,
        "diversity": _diversity(options),
        "items": options.items,
        "clicks": options.clicks,
        "dim": options.dim,
        "seed": options.seed,
        "nprobe": published.manifest.index.nprobe,
        "lists": published.manifest.index.num_lists,
        "training_clicks": options.training_clicks,
        **environment(),
    }


def _diversity(options: argparse.Namespace) -> float:
    return float(options.diversity) if options.channels == "full" else 0.0


def _worker_settings(options: argparse.Namespace) -> dict[str, Any]:
    return {"recall_sample": _RECALL_SAMPLE, "ranking": {"diversity": _diversity(options)}}


def summary(rounds: Sequence[Mapping[str, Figures]]) -> Figures:
    """Return the figures of one guarantee, or those of each and the ratio of their CPU times."""
    typical = {name: _typical([each[name] for each in rounds]) for name in rounds[0]}
    if len(typical) == 1:
        (figures,) = typical.values()
        return figures
    once, exactly = GUARANTEES
    ratios = [each[exactly]["cpu_us_per_click"] / each[once]["cpu_us_per_click"] for each in rounds]
    return typical | {
        "cpu_ratio": round(median(ratios), 3),
        "cpu_ratios": [round(ratio, 3) for ratio in ratios],
    }


def _typical(figures: list[Figures]) -> Figures:
    middle = median_low(each["cpu_us_per_click"] for each in figures)
    return next(each for each in figures if each["cpu_us_per_click"] == middle)


def _drained(
    settings: Settings, published: Published, clicks: SimulatedClicks, folder: Path
) -> Figures:
    """Load the clicks, let a worker drain them, return its figures."""
    create(settings, published)
    load_clicks(settings, clicks)
    with worker_process(settings, folder / settings.kafka.app):
        return _drain(settings, len(clicks))


def _drain(settings: Settings, clicks: int) -> Figures:
    """Wait until all clicks are answered; return differences per click since the warm-up."""
    deadline = time.monotonic() + _DRAIN_SECONDS
    start: tuple[float, dict[str, float]] | None = None
    while time.monotonic() < deadline:
        metrics = scrape(settings)
        answered = metrics.get("nextclick_clicks_total", 0.0)
        if start is None and answered >= _WARM_SHARE * clicks:
            start = time.monotonic(), metrics
        if answered >= clicks and start is not None:
            return _per_click(start, (time.monotonic(), metrics))
        time.sleep(_SCRAPE_SECONDS)
    raise TimeoutError(f"{answered:.0f} of {clicks} clicks answered in {_DRAIN_SECONDS:.0f} s")


def _per_click(
    start: tuple[float, dict[str, float]], end: tuple[float, dict[str, float]]
) -> Figures:
    def difference(name: str) -> float:
        return end[1].get(name, 0.0) - start[1].get(name, 0.0)

    clicks = difference("nextclick_clicks_total")
    stages = {
        stage: difference(f"nextclick_stage_duration_seconds_sum{{{stage}}}") for stage in STAGES
    }
    return {
        "cpu_us_per_click": round(1e6 * difference("process_cpu_seconds_total") / clicks, 1),
        "clicks_per_second": round(clicks / (end[0] - start[0])),
        "stages_us": {name: round(1e6 * seconds / clicks, 1) for name, seconds in stages.items()},
        "index_recall": round(end[1].get("nextclick_index_recall_ratio", float("nan")), 4),
        "rss_mib": round(end[1]["process_resident_memory_bytes"] / 2**20),
        "clicks_per_batch": round(clicks / difference("nextclick_batch_clicks_count"), 1),
    }


def _lines(report: Figures) -> list[tuple[str, Any]]:
    """Return the report as lines, those of each guarantee under its name."""
    lines: list[tuple[str, Any]] = []
    for name, value in report.items():
        if name in GUARANTEES:
            lines += [(f"{name}.{figure}", each) for figure, each in value.items()]
        else:
            lines.append((name, value))
    return lines


if __name__ == "__main__":
    main()
