"""How long a click waits for its recommendation, at fixed rates and under each guarantee.

    python -m benchmarks.latency --rates 500,1000 --guarantee both --seconds 20 --items 20000 --json

Clicks are sent at even distances, whatever becomes of them (open loop). A reader with
read_committed notes when it has each recommendation: `due_to_read` counts from when the click was
due, `append_to_read` from when the broker had appended it. `append_to_append` ends with the append
of the recommendation, which under exactly_once nobody can read before the commit marker. `publish`
is the share of the load itself: from due to appended.

Each row has topics, group and worker process of its own; CPU time is the worker's. Caveats:
broker, worker, load and reader share the machine; the load is one Python process, whose own delay
is in `due_to_read`; append times are cut to milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.environment import environment
from benchmarks.open_loop import Watcher, latencies, percentiles, send_clicks
from benchmarks.options import Help
from benchmarks.serving import (
    GUARANTEES,
    chosen_guarantees,
    create,
    fresh_settings,
    scrape,
    worker_process,
)
from benchmarks.world import World
from cli.settings import Settings
from index.threads import use_threads
from stream import clients
from stream.kafka_types import KafkaProducer, TopicPartition
from stream.local_kafka import LocalKafka
from stream.simulator import SimulatedClicks, Simulator

_WARM_SECONDS = 5
_ANSWER_SECONDS = 60.0
_SWITCH_SECONDS = 0.0005  # load and reader are threads of one process: neither waits long
_BATCHES = "nextclick_batch_clicks_count"
_COLUMNS = ("due_to_read", "append_to_read", "append_to_append", "publish")
_COSTS = ("cpu_us_per_click", "batches_per_second", "clicks_per_batch", "load")
_WIDTH = 29

Row = dict[str, Any]


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--rates", type=_rates, default="500,1000", help="clicks per second")
    parser.add_argument("--guarantee", choices=(*GUARANTEES, "both"), default="both")
    parser.add_argument("--seconds", type=int, default=20, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is measured")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--training-clicks", type=int, default=200_000)
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
    else:
        print_table(report)


def _rates(text: str) -> tuple[int, ...]:
    return tuple(int(rate) for rate in text.split(","))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return one row per round, rate and guarantee, and what they were measured with."""
    world = World(options.items, options.training_clicks, options.dim, options.seed)
    simulator = world.simulator()
    published = world.version(simulator, folder / "models")
    orders = [
        (number, rate, guarantee)
        for number in range(options.rounds)
        for rate in options.rates
        for guarantee in chosen_guarantees(options.guarantee)
    ]
    rows = []
    with LocalKafka(folder / "kafka", fast_start=False) as kafka:
        for number, rate, guarantee in orders:
            name = f"round{number}-{rate}-{guarantee}"
            settings = fresh_settings(kafka.bootstrap_servers, name, published, guarantee=guarantee)
            create(settings, published)
            with worker_process(settings, folder / name):
                rows.append(_row(settings, simulator, rate, options.seconds))
    return {
        "rows": rows,
        "seconds": options.seconds,
        "items": options.items,
        "training_clicks": options.training_clicks,
        "dim": options.dim,
        "seed": options.seed,
        **environment(),
    }


def _row(settings: Settings, simulator: Simulator, rate: int, seconds: int) -> Row:
    """Return latencies and cost of a worker at one rate, warmed up at the same rate."""
    warm_up, clicks = (simulator.take(rate * each) for each in (_WARM_SECONDS, seconds))
    with load_clients(settings) as (producer, watcher):
        topic = settings.topics.clicks
        send_clicks(producer, topic, click_rows(warm_up), rate)
        watcher.await_count(len(warm_up), _ANSWER_SECONDS)
        before, started = scrape(settings), time.monotonic()
        sent = send_clicks(producer, topic, click_rows(clicks), rate)
        watcher.await_count(len(warm_up) + len(clicks), _ANSWER_SECONDS)
        elapsed, after = time.monotonic() - started, scrape(settings)
        measured = latencies(sent, watcher.seen())
    return {
        "guarantee": settings.processing.guarantee,
        "rate": rate,
        "clicks": len(clicks),
        **{f"{name}_ms": percentiles(getattr(measured, name)) for name in _COLUMNS},
        **_cost(before, after, elapsed),
        "load": round(os.getloadavg()[0], 2),
    }


def click_rows(clicks: SimulatedClicks) -> Iterator[tuple[str, str, str]]:
    """Yield the clicks as `send_clicks` takes them."""
    return zip(clicks.user_ids, clicks.item_ids, clicks.session_ids, strict=True)


@contextmanager
def load_clients(settings: Settings) -> Iterator[tuple[KafkaProducer, Watcher]]:
    """Yield a producer that sends at once, and a reader of committed recommendations."""
    at_once = settings.kafka.model_copy(update={"linger_ms": 0})
    producer = clients.producer(at_once, client_id="benchmark-clicks")
    reader = clients.reader(settings.kafka, client_id="benchmark-reader")
    topics = settings.topics
    watcher = Watcher(
        reader, [TopicPartition(topics.recommendations, p) for p in range(topics.partitions)]
    )
    try:
        yield producer, watcher
    finally:
        watcher.close()
        reader.close()
        producer.close(timeout=10)


def _cost(before: dict[str, float], after: dict[str, float], seconds: float) -> Row:
    def difference(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    clicks, batches = difference("nextclick_clicks_total"), difference(_BATCHES)
    return {
        "cpu_us_per_click": round(1e6 * difference("process_cpu_seconds_total") / clicks, 1),
        "batches_per_second": round(batches / seconds, 1),
        "clicks_per_batch": round(clicks / batches, 1),
    }


def print_table(report: dict[str, Any]) -> None:
    """Print a line per row, milliseconds as p50 / p99 / p99.9 / max, then the rest."""
    print("".join([f"{'guarantee':14}{'rate':>5}", *(f"{name:>{_WIDTH}}" for name in _COLUMNS)]))
    for row in report["rows"]:
        cells = [" / ".join(f"{ms:g}" for ms in row[f"{name}_ms"].values()) for name in _COLUMNS]
        print(
            f"{row['guarantee']:14}{row['rate']:5}" + "".join(f"{text:>{_WIDTH}}" for text in cells)
        )
        print("    " + ", ".join(f"{name} {row[name]:g}" for name in _COSTS))
    for name, value in report.items():
        if name != "rows":
            print(f"{name:16} {value}")


if __name__ == "__main__":
    main()
