"""The worker's loop on real Kafka: clicks in, recommendations out, sessions across workers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka import TopicPartition
from prometheus_client import CollectorRegistry

from cli.settings import Settings
from cli.worker import construct_worker
from model.bundle import Published, load
from stream import clients, topics
from stream.announcements import announce
from stream.changelog import read_to_end
from stream.local_kafka import LocalKafka
from stream.messages import Gate, ModelAnnouncement, Recommendation, decode_recommendation
from stream.monitor import Health
from worker.metrics import WorkerMetrics
from worker.verify import Report, Verifier
from worker.worker import CONDITIONS, Worker

pytestmark = pytest.mark.kafka


class Running:
    """A worker in a thread, with its metrics."""

    def __init__(self, settings: Settings) -> None:
        self.registry = CollectorRegistry()
        self.health = Health(CONDITIONS)
        self.worker: Worker = construct_worker(settings, WorkerMetrics(self.registry), self.health)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.worker.run()
        except BaseException as error:
            self.error = error
            raise

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"nextclick_{name}", labels) or 0.0

    def stop(self) -> None:
        self.worker.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()


class System:
    """Topics of their own on the shared broker, and what a user does with them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.workers: list[Running] = []
        topics.ensure(settings.kafka, settings.topics)
        self.producer = clients.producer(settings.kafka, client_id="test")

    def announce(self, published: Published) -> None:
        manifest = published.manifest
        announcement = ModelAnnouncement(
            name=manifest.name,
            version=manifest.version,
            kind="bundle",
            uri=published.uri,
            manifest_sha256=published.manifest_sha256,
            bytes=published.num_bytes,
            created_at=manifest.created_at,
            encoder_version=manifest.encoder_version,
            trained_through={},
            metrics={},
            gate=Gate(verdict="accepted"),
        )
        announce(self.producer, self.settings.topics.models, announcement, timeout_seconds=10)

    def click(self, user: str, item: str, **fields: Any) -> None:
        value = {"user_id": user, "item_id": item, "timestamp": "2026-11-23T10:00:00Z", **fields}
        self.send(json.dumps(value).encode(), key=user.encode())

    def send(self, value: bytes | None, key: bytes | None, **where: Any) -> None:
        self.producer.send(self.settings.topics.clicks, value=value, key=key, **where)
        self.producer.flush(timeout=10)

    def start_worker(self) -> Running:
        self.workers.append(Running(self.settings))
        return self.workers[-1]

    def recommendations(self) -> list[Recommendation]:
        return [decode_recommendation(r.value) for r in self.records("recommendations")]

    def records(self, topic: str) -> list[Any]:
        reader = clients.reader(self.settings.kafka, client_id="test-reader")
        try:
            name = getattr(self.settings.topics, topic)
            parts = [TopicPartition(name, p) for p in reader.partitions_for_topic(name) or ()]
            ends = reader.end_offsets(parts, timeout_ms=10_000)
            return list(read_to_end(reader, ends, between_slices=lambda: True))
        finally:
            reader.close()

    def verify(self, uris: dict[str, Published]) -> Report:
        consumer = clients.click_consumer(self.settings.kafka, client_id="test-verify")
        name = self.settings.topics.clicks
        committed = {
            p: consumer.committed(TopicPartition(name, p), timeout_ms=10_000)
            for p in consumer.partitions_for_topic(name) or ()
        }
        consumer.close()
        reader = clients.reader(self.settings.kafka, client_id="test-verify")

        def bundle_of(version: str) -> Any:
            published = uris[version]
            return load(published.uri, published.manifest_sha256, max_bytes=2**30)

        sessions = self.settings.worker.sessions
        try:
            return Verifier(reader, self.settings.topics, sessions, bundle_of).verify(committed)
        finally:
            reader.close()

    def close(self) -> None:
        for running in self.workers:
            running.worker.stop()
        for running in self.workers:
            running.stop()
        self.producer.close(timeout=5)


@pytest.fixture
def system(kafka: LocalKafka, topic_names: Callable[[], str]) -> Iterator[System]:
    prefix = topic_names()
    names = {
        "clicks": prefix + "clicks",
        "recommendations": prefix + "recommendations",
        "sessions": prefix + "sessions",
        "models": prefix + "models",
        "dead_letters": prefix + "dlq",
        "partitions": 2,
    }
    made = System(
        Settings(
            kafka={"bootstrap_servers": kafka.bootstrap_servers, "app": prefix + "app"},
            topics=names,
        )
    )
    yield made
    made.close()


def test_a_click_is_answered_and_its_session_kept(
    system: System, publish_bundle: Callable[..., Published], wait_until: Callable[..., None]
) -> None:
    published = publish_bundle()
    system.announce(published)
    worker = system.start_worker()

    for n in range(40):
        system.click(f"u{n % 7}", f"i{n}")
    wait_until(lambda: worker.value("clicks_total") == 40, 30, "40 clicks are answered")
    worker.stop()

    recommendations = system.recommendations()
    assert len(recommendations) == 40
    assert all(len(r.items) == 20 for r in recommendations)
    assert {r.model.version for r in recommendations} == {published.manifest.version}
    report = system.verify({published.manifest.version: published})
    assert report.violations == []
    assert (report.clicks, report.recommendations, report.repeated) == (40, 40, 0)
    assert (report.sessions, report.states) == (7, 7)
