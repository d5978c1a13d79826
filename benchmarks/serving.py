"""A system to be measured: fresh topics on a local broker, one real worker, its figures."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from cli.demo_roles import RoleProcess, Roles
from cli.demo_settings import write_settings
from cli.settings import Settings
from model.bundle import Published
from stream import clients, topics
from stream.announcements import announce
from stream.publisher import ClickPublisher
from stream.simulator import SimulatedClicks
from trainer.publish import announcement

GUARANTEES = ("at_least_once", "exactly_once")
_READY_SECONDS = 120.0
_ANNOUNCE_SECONDS = 30.0


def chosen_guarantees(name: str) -> tuple[str, ...]:
    """Return the guarantees that an option names: one of them, or both in their fixed order."""
    return GUARANTEES if name == "both" else (name,)


def fresh_settings(
    bootstrap_servers: str,
    name: str,
    published: Published,
    *,
    guarantee: str,
    worker: Mapping[str, Any] | None = None,
) -> Settings:
    """Return settings whose topics and group are called after `name`, unique on the broker."""
    topic_names = ("clicks", "recommendations", "sessions", "models", "dead_letters")
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": bootstrap_servers, "app": name},
            "topics": {topic: f"{name}-{topic}" for topic in topic_names},
            "processing": {"guarantee": guarantee, "slot": "0"},
            "store": {"url": str(Path(published.uri.removeprefix("file://")).parents[1])},
            "worker": worker or {},
            "metrics": {"worker_port": free_port()},
        }
    )


def create(settings: Settings, published: Published) -> None:
    """Create the topics and announce the version that the worker is to serve."""
    topics.ensure(settings.kafka, settings.topics)
    announce_version(settings, published)


def announce_version(settings: Settings, published: Published) -> None:
    """Announce a version that the worker is to serve from then on."""
    producer = clients.producer(settings.kafka, client_id="benchmark-versions")
    try:
        announce(
            producer,
            settings.topics.models,
            announcement(published),
            timeout_seconds=_ANNOUNCE_SECONDS,
        )
    finally:
        producer.close(timeout=10)


def load_clicks(settings: Settings, clicks: SimulatedClicks) -> None:
    """Send clicks to the topic as fast as it takes them."""
    producer = clients.producer(settings.kafka, client_id="benchmark-clicks")
    publisher = ClickPublisher(producer, settings.topics.clicks)
    now_ms = int(time.time() * 1000)
    rows = zip(clicks.user_ids, clicks.item_ids, clicks.session_ids, strict=True)
    for user_id, item_id, session_id in rows:
        publisher.publish(user_id, item_id, now_ms, session_id=session_id)
    publisher.flush()
    producer.close(timeout=10)


@contextmanager
def worker_process(settings: Settings, folder: Path) -> Iterator[None]:
    """Run `nextclick worker`, ready on entry, stopped on exit; raises RoleError if it fails."""
    folder.mkdir(parents=True)
    config = folder / "worker.toml"
    write_settings(settings, config)
    worker = RoleProcess("worker", config, folder / "worker.log", settings.metrics.worker_port)
    with Roles(worker) as roles:
        roles.start(_READY_SECONDS)
        yield
        roles.stop()


def scrape(settings: Settings) -> dict[str, float]:
    """Return sample values of the worker by name; those of stages carry the stage in braces.

    It costs the worker 10 ms of CPU.
    """
    url = f"http://127.0.0.1:{settings.metrics.worker_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    samples: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            stage = sample.labels.get("stage")
            samples[f"{sample.name}{{{stage}}}" if stage else sample.name] = sample.value
    return samples


def free_port() -> int:
    """Return a port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
