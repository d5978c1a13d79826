"""CPU time per click of the worker: clicks waiting in a real topic, drained at full speed.

    python -m benchmarks.worker --items 100000 --json

A model is trained on simulated clicks first, so that queries are those of real sessions. Clicks,
recommendations and changelog go through a real local broker, compiled fully (no quick start).
Figures are differences between two scrapes of the worker's own /metrics, the first after a fifth of
the clicks. Caveats: broker and worker share the machine; the version has learnt its clicks once,
about ten per item by default, and with far fewer the lists must read many more rows; items that no
simulated click of the training period touched get vectors near those of trained items; stages are
wall time of the main thread (`commit` waits for the broker), while `cpu_us_per_click` is CPU time
of the whole process.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from prometheus_client.parser import text_string_to_metric_families
from rich.progress import Progress

from benchmarks.environment import environment
from cli.settings import Settings
from index.item_index import plan
from index.threads import use_threads
from model.bundle import Bundle, Published, load, new_version, publish
from model.manifest import IndexFacts
from model.store import Store
from stream import clients, topics
from stream.announcements import announce
from stream.click_log import ClickLog
from stream.local_kafka import LocalKafka
from stream.publisher import ClickPublisher
from stream.simulator import Simulator, SimulatorSettings
from trainer.first import Order, train_first
from trainer.publish import announcement
from worker.metrics import STAGES

_WARM_SHARE = 0.2
_DRAIN_SECONDS = 600.0
_RECALL_SAMPLE = 0.05
_SCRAPE_SECONDS = 0.5  # a scrape costs the worker 10 ms of CPU


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Help)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--clicks", type=int, default=60_000, help="clicks to drain")
    parser.add_argument("--training-clicks", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    use_threads(1)
    with tempfile.TemporaryDirectory(prefix="nextclick-benchmark-") as folder:
        report = measure(options, Path(folder))
    if options.json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        print(f"{name:20} {value}")


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the figures and what they were measured with."""
    simulator = _simulator(options)
    published = _version(options, simulator, folder)
    with LocalKafka(folder / "kafka", fast_start=False) as kafka:
        settings = _settings(kafka.bootstrap_servers, folder)
        topics.ensure(settings.kafka, settings.topics)
        producer = clients.producer(settings.kafka, client_id="benchmark")
        announce(producer, settings.topics.models, announcement(published), timeout_seconds=30.0)
        _load_clicks(simulator, ClickPublisher(producer, settings.topics.clicks), options.clicks)
        producer.close(timeout=10)
        with _worker(settings, folder) as port:
            figures = _drain(port, options.clicks)
    return figures | {
        "items": options.items,
        "clicks": options.clicks,
        "dim": options.dim,
        "seed": options.seed,
        "nprobe": published.manifest.index.nprobe,
        "lists": published.manifest.index.num_lists,
        "training_clicks": options.training_clicks,
        **environment(),
    }


def _simulator(options: argparse.Namespace) -> Simulator:
    settings = SimulatorSettings(
        users=max(5_000, options.items // 2),
        items=options.items,
        topics=max(40, options.items // 250),
        active_sessions=max(500, options.items // 40),
        new_items_per_1000_clicks=0.0,
        truth="off",
    )
    return Simulator(settings, options.seed)


def _version(options: argparse.Namespace, simulator: Simulator, folder: Path) -> Published:
    clicks = simulator.take(options.training_clicks)
    log = ClickLog(
        user_ids=clicks.user_ids,
        session_ids=clicks.session_ids,
        item_ids=clicks.item_ids,
        times_ms=1_790_000_000_000 + 3 * np.arange(len(clicks), dtype=np.int64),
    )
    store = Store(str(folder / "models"))
    with Progress(disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("train", total=None)
        first = train_first(
            log,
            store,
            Settings().trainer,
            Order(dim=options.dim, epochs=1),
            now_ms=int(time.time() * 1000),
            report=lambda at: progress.update(task, completed=at.clicks, total=at.total_clicks),
        )
    trained = load(first.published.uri, first.published.manifest_sha256, max_bytes=2**33)
    return publish(store, _filled(trained, options))


def _filled(trained: Bundle, options: argparse.Namespace) -> Bundle:
    """Return the version with every item of the world: the unclicked ones lie near trained ones."""
    rng = np.random.default_rng(options.seed)
    known = set(trained.catalogue.ids)
    missing = [f"i{n}" for n in range(options.items) if f"i{n}" not in known]
    near = trained.vectors_ND[rng.integers(len(known), size=len(missing))]
    noise = rng.standard_normal(near.shape) * 0.5 / np.sqrt(near.shape[1])
    vectors = np.concatenate([trained.vectors_ND, (near + noise).astype(np.float32)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = _queries(trained)
    index = plan(vectors, queries, k=20, seed=options.seed)
    manifest = msgspec.structs.replace(
        trained.manifest,
        version=new_version(trained.manifest.created_at, "0" * 8, after=trained.manifest.version),
        index=IndexFacts(num_lists=index.num_lists, nprobe=index.nprobe, recall=index.recall),
    )
    return dataclasses.replace(
        trained,
        manifest=manifest,
        catalogue=trained.catalogue.extended(missing),
        vectors_ND=vectors,
        popularity_N=np.append(trained.popularity_N, np.zeros(len(missing), np.float32)),
        centroids_CD=index.centroids_CD,
        list_numbers_N=index.list_numbers_N,
        golden=(),
    )


def _queries(trained: Bundle) -> np.ndarray[Any, np.dtype[Any]]:
    queries = []
    with torch.inference_mode():
        for golden in trained.golden:
            items = torch.from_numpy(trained.vectors_ND[golden.rows])[None]
            for length in range(1, len(golden.rows) + 1):
                state = trained.encoder.encode(items, torch.tensor([length]))
                queries.append(trained.encoder.query(state, items[:, length - 1])[0].numpy())
    return np.stack(queries)


def _settings(bootstrap_servers: str, folder: Path) -> Settings:
    return Settings(
        kafka={"bootstrap_servers": bootstrap_servers},
        store={"url": str(folder / "models")},
        worker={"recall_sample": _RECALL_SAMPLE},
        metrics={"worker_port": _free_port()},
    )


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _load_clicks(simulator: Simulator, publisher: ClickPublisher, count: int) -> None:
    clicks = simulator.take(count)
    now_ms = int(time.time() * 1000)
    rows = zip(clicks.user_ids, clicks.item_ids, clicks.session_ids, strict=True)
    for user_id, item_id, session_id in rows:
        publisher.publish(user_id, item_id, now_ms, session_id=session_id)
    publisher.flush()


@contextmanager
def _worker(settings: Settings, folder: Path) -> Iterator[int]:
    config = folder / "worker.toml"
    config.write_text(
        f'[kafka]\nbootstrap_servers = "{settings.kafka.bootstrap_servers}"\n'
        f'[store]\nurl = "{settings.store.url}"\n'
        f"[worker]\nrecall_sample = {settings.worker.recall_sample}\n"
        f"[metrics]\nworker_port = {settings.metrics.worker_port}\n"
    )
    command = [sys.executable, "-m", "cli", "worker", "--config", str(config)]
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
        try:
            yield settings.metrics.worker_port
        finally:
            process.terminate()
            process.wait(timeout=20)


def _drain(port: int, clicks: int) -> dict[str, Any]:
    """Wait until all clicks are answered; return differences per click since the warm-up."""
    deadline = time.monotonic() + _DRAIN_SECONDS
    start: tuple[float, dict[str, float]] | None = None
    while time.monotonic() < deadline:
        metrics = _scrape(port)
        answered = metrics.get("nextclick_clicks_total", 0.0)
        if start is None and answered >= _WARM_SHARE * clicks:
            start = time.monotonic(), metrics
        if answered >= clicks and start is not None:
            return _per_click(start, (time.monotonic(), metrics))
        time.sleep(_SCRAPE_SECONDS)
    raise TimeoutError(f"{answered:.0f} of {clicks} clicks answered in {_DRAIN_SECONDS:.0f} s")


def _per_click(
    start: tuple[float, dict[str, float]], end: tuple[float, dict[str, float]]
) -> dict[str, Any]:
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


def _scrape(port: int) -> dict[str, float]:
    """Return sample values by name; those of stages carry the stage in braces."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    samples: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            stage = sample.labels.get("stage")
            samples[f"{sample.name}{{{stage}}}" if stage else sample.name] = sample.value
    return samples


if __name__ == "__main__":
    main()
