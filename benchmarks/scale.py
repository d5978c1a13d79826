"""What more workers and more partitions do to the cost of a click; real Kafka.

    python -m benchmarks.scale --partitions 1,8,32 --json

For every number of partitions one worker, then two of one group, drain the same simulated clicks,
which arrive while they run: the first fifth is not counted. `clicks_per_cpu_second` adds up what
each worker answers in a second of its own CPU time, so it says what they would do with a core for
each, whatever broker and load take of the machine; `scaling` is that of two over that of one. The
broker is no limit of such a figure: a worker that waits for it spends no CPU time.

Caveats: workers, broker and load share the machine and its caches, which makes every worker's CPU
time longer the more of them run; partitions are spread by the group, so two workers may have
unequal shares.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.environment import environment
from benchmarks.options import Help
from benchmarks.serving import (
    GUARANTEES,
    create,
    free_port,
    fresh_settings,
    load_clicks,
    scrape,
    worker_process,
)
from benchmarks.world import World
from cli.settings import Settings
from index.threads import use_threads
from model.bundle import Published
from stream.local_kafka import LocalKafka
from stream.simulator import SimulatedClicks

_WARM_SHARE: Final = 0.2
_SECONDS: Final = 600.0
_SCRAPE_SECONDS: Final = 0.5

Figures = dict[str, Any]


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--partitions", type=_numbers, default="1,8,32")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--clicks", type=int, default=40_000, help="clicks of each row")
    parser.add_argument("--training-clicks", type=int, default=200_000)
    parser.add_argument("--guarantee", choices=GUARANTEES, default="at_least_once")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    use_threads(1)
    with tempfile.TemporaryDirectory(prefix="nextclick-benchmark-") as folder:
        report = measure(options, Path(folder))
    print(json.dumps(report) if options.json else table(report))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def measure(options: argparse.Namespace, folder: Path) -> Figures:
    """Return a row for every number of partitions and workers."""
    world = World(options.items, options.training_clicks, options.dim, options.seed)
    simulator = world.simulator()
    published = world.version(simulator, folder / "models")
    rows: list[Figures] = []
    with LocalKafka(folder / "kafka", fast_start=False) as kafka:
        bench = Bench(
            *(kafka.bootstrap_servers, published, simulator.take(options.clicks)),
            guarantee=options.guarantee,
            folder=folder,
        )
        for partitions in options.partitions:
            one = bench.row(1, partitions)
            rows.append(one)
            if partitions > 1:
                two = bench.row(2, partitions)
                scaling = two["clicks_per_cpu_second"] / one["clicks_per_cpu_second"]
                rows.append(two | {"scaling": round(scaling, 3)})
    return {
        "rows": rows,
        "guarantee": options.guarantee,
        "items": options.items,
        "clicks": options.clicks,
        "dim": options.dim,
        "seed": options.seed,
        **environment(),
    }


@dataclass(frozen=True)
class Bench:
    """The broker, the version and the clicks that all rows share."""

    bootstrap_servers: str
    published: Published
    clicks: SimulatedClicks
    guarantee: str
    folder: Path

    def row(self, workers: int, partitions: int) -> Figures:
        """Have some workers of one group drain the clicks; return what each click cost."""
        first = self._settings(f"p{partitions}w{workers}", partitions)
        create(first, self.published)
        group = [_sibling(first, number) for number in range(workers)]
        with ExitStack() as running:
            for number, each in enumerate(group):
                folder = self.folder / f"{first.kafka.app}-{number}"
                running.enter_context(worker_process(each, folder))
            _await(group, lambda found: all(f["nextclick_assigned_partitions"] for f in found))
            warm = round(_WARM_SHARE * len(self.clicks))
            before = self._drained(group, slice(0, warm), warm)
            after = self._drained(group, slice(warm, None), len(self.clicks))
        return {
            "workers": workers,
            "partitions": partitions,
            **_figures(list(zip(before, after, strict=True))),
        }

    def _settings(self, name: str, partitions: int) -> Settings:
        settings = fresh_settings(
            self.bootstrap_servers, name, self.published, guarantee=self.guarantee
        )
        topics = settings.topics.model_copy(update={"partitions": partitions})
        return settings.model_copy(update={"topics": topics})

    def _drained(self, group: list[Settings], part: slice, total: int) -> list[dict[str, float]]:
        """Send some clicks; return every worker's figures once so many in all are answered."""
        load_clicks(group[0], taken(self.clicks, part))
        return _await(group, lambda found: sum(map(_answered, found)) >= total)


def taken(clicks: SimulatedClicks, part: slice) -> SimulatedClicks:
    """Return some of the clicks, without what is known of the truth."""
    columns = (clicks.user_ids[part], clicks.session_ids[part], clicks.item_ids[part])
    return SimulatedClicks(*columns, clicks.best_hit_rate_n[part], [])


def _sibling(settings: Settings, number: int) -> Settings:
    """Return the settings of one process of the group."""
    return settings.model_copy(
        update={
            "metrics": settings.metrics.model_copy(update={"worker_port": free_port()}),
            "processing": settings.processing.model_copy(update={"slot": str(number)}),
        }
    )


def _answered(metrics: dict[str, float]) -> float:
    return metrics.get("nextclick_clicks_total", 0.0)


def _await(
    group: list[Settings], holds: Callable[[list[dict[str, float]]], bool]
) -> list[dict[str, float]]:
    """Scrape all workers until it holds of their figures; return these."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        found = [scrape(each) for each in group]
        if holds(found):
            return found
        time.sleep(_SCRAPE_SECONDS)
    raise TimeoutError(f"not reached in {_SECONDS:.0f} s, {sum(map(_answered, found)):.0f} clicks")


def _figures(pairs: list[tuple[dict[str, float], dict[str, float]]]) -> Figures:
    """Return the cost of a click from every worker's figures before and after."""
    clicks = [_answered(after) - _answered(before) for before, after in pairs]
    name = "process_cpu_seconds_total"
    seconds = [after[name] - before[name] for before, after in pairs]
    return {
        "clicks_of_each": [round(number) for number in clicks],
        "cpu_us_per_click": round(1e6 * sum(seconds) / sum(clicks), 1),
        "clicks_per_cpu_second": round(
            sum(number / used for number, used in zip(clicks, seconds, strict=True))
        ),
    }


def table(report: Figures) -> str:
    """Return the rows as text."""
    lines = [f"{'partitions':>10}{'workers':>9}{'CPU µs':>9}{'clicks/CPU s':>14}  scaling"]
    lines += [
        f"{row['partitions']:10}{row['workers']:9}{row['cpu_us_per_click']:9}"
        f"{row['clicks_per_cpu_second']:14,}  {row.get('scaling', '')}"
        for row in report["rows"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
