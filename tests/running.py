"""A running system for tests that need real Kafka: topics, workers in threads, what users do."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kafka import TopicPartition
from prometheus_client import CollectorRegistry

from cli.settings import Settings
from cli.verify import audit
from cli.worker_parts import construct_worker
from model.bundle import Bundle, Published
from model.joined import StoredVersions
from model.store import Store
from stream import clients, topics
from stream.announcements import announce
from stream.changelog import read_to_end
from stream.local_kafka import LocalKafka
from stream.messages import Gate, ModelAnnouncement, Recommendation, decode_recommendation
from stream.monitor import Health
from worker.metrics import WorkerMetrics
from worker.report import Report
from worker.sessions import RING
from worker.worker import CONDITIONS, Worker


class Running:
    """A worker in a thread, with its metrics."""

    def __init__(self, settings: Settings) -> None:
        self.registry = CollectorRegistry()
        self.health = Health(CONDITIONS)
        self.worker: Worker = construct_worker(settings, WorkerMetrics(self.registry), self.health)
        self.error: BaseException | None = None
        self.ended = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.worker.run()
        except BaseException as error:  # noqa: BLE001  the test looks at it
            self.error = error
        self.ended = True

    def value(self, name: str, /, **labels: str) -> float:
        return self.registry.get_sample_value(f"nextclick_{name}", labels) or 0.0

    def stop(self) -> None:
        self.worker.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()
        assert self.error is None


class System:
    """Topics of their own on a broker, and what producers, readers and operators do with them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.workers: list[Running] = []
        topics.ensure(settings.kafka, settings.topics)
        # Clicks outlast any fault that a test plants, and are as large as the broker takes.
        patient = settings.kafka.model_copy(
            update={"delivery_timeout_ms": 60_000, "producer": {"max_request_size": 4_000_000}}
        )
        self.producer = clients.producer(patient, client_id="test")

    def announcement(self, published: Published, **overrides: Any) -> ModelAnnouncement:
        manifest = published.manifest
        fields: dict[str, Any] = {
            "name": manifest.name,
            "version": manifest.version,
            "kind": "bundle",
            "uri": published.uri,
            "manifest_sha256": published.manifest_sha256,
            "bytes": published.num_bytes,
            "created_at": manifest.created_at,
            "encoder_version": manifest.encoder_version,
            "trained_through": {},
            "metrics": {},
            "gate": Gate(verdict="accepted"),
        }
        return ModelAnnouncement(**fields | overrides)

    def announce(self, published: Published, **overrides: Any) -> None:
        announcement = self.announcement(published, **overrides)
        announce(self.producer, self.settings.topics.models, announcement, timeout_seconds=10)

    def click(self, user: str, item: str, **fields: Any) -> None:
        """Send a click with a time of the future, which becomes the log's own."""
        click = {"user_id": user, "item_id": item, "timestamp": 4_000_000_000_000} | fields
        self.send(json.dumps(click), user)

    def send(self, value: str | bytes | None, key: str | None, **where: Any) -> None:
        """Send a record to the clicks topic without waiting; `flush` waits."""
        body = value.encode() if isinstance(value, str) else value
        key_bytes = None if key is None else key.encode()
        self.producer.send(self.settings.topics.clicks, value=body, key=key_bytes, **where)

    def flush(self) -> None:
        self.producer.flush(timeout=30)

    def start_worker(self) -> Running:
        self.workers.append(Running(self.settings))
        return self.workers[-1]

    def recommendations(self) -> list[Recommendation]:
        return [decode_recommendation(r.value) for r in self.records("recommendations")]

    def records(self, topic: str) -> list[Any]:
        """All records of a topic, by its name in the settings."""
        reader = clients.reader(self.settings.kafka, client_id="test-reader")
        try:
            name = getattr(self.settings.topics, topic)
            parts = [TopicPartition(name, p) for p in reader.partitions_for_topic(name) or ()]
            ends = reader.end_offsets(parts, timeout_ms=10_000)
            return list(read_to_end(reader, ends, between_slices=lambda: True))
        finally:
            reader.close()

    def committed(self) -> dict[int, int | None]:
        """The workers' committed offset of each clicks partition."""
        consumer = clients.click_consumer(self.settings.kafka, client_id="test-committed")
        name = self.settings.topics.clicks
        try:
            return {
                p: consumer.committed(TopicPartition(name, p), timeout_ms=10_000)
                for p in range(self.settings.topics.partitions)
            }
        finally:
            consumer.close()

    def bundle_of(self, version: str) -> Bundle:
        """Load a version by its name, as `nextclick verify` does."""
        store = Store(self.settings.store.url)
        return StoredVersions(store, self.settings.worker.model, max_bytes=2**30).load(version)

    def check_scores(self) -> int:
        """Compare lists with exact search under the version they name; returns how many.

        Only for versions without a ranker and items they know, and for sessions of short history:
        in a longer one the state still holds what the ring has dropped, which `verify` checks.
        """
        bundles: dict[str, Bundle] = {}
        items: dict[str, list[str]] = {}
        checked = 0
        for recommendation in self.recommendations():
            session = items.setdefault(recommendation.user_id, [])
            session.append(recommendation.trigger.item_id)
            if len(session) > RING:
                continue
            version = recommendation.model.version
            if version not in bundles:
                bundles[version] = self.bundle_of(version)
            bundle = bundles[version]
            scores_N = bundle.vectors_ND @ _query(bundle, session)
            rows = bundle.catalogue.rows(item.item_id for item in recommendation.items)
            stated = [item.score for item in recommendation.items]
            np.testing.assert_allclose(stated, scores_N[rows], atol=2e-4)
            np.testing.assert_allclose(stated, np.sort(scores_N)[::-1][: len(rows)], atol=2e-4)
            checked += 1
        return checked

    def verify(self, *, exactly_once: bool | None = None) -> Report:
        """Compare the topics with a replay; by default as strictly as the guarantee allows."""
        strict = self.settings.processing.guarantee == "exactly_once"
        return audit(self.settings, exactly_once=strict if exactly_once is None else exactly_once)

    def close(self) -> None:
        for running in self.workers:
            running.worker.stop()
        for running in self.workers:
            running.stop()
        self.producer.close(timeout=5)


def _query(bundle: Bundle, items: list[str]) -> Any:
    rows = bundle.catalogue.rows(items)
    with torch.inference_mode():
        vectors_TD = torch.from_numpy(bundle.vectors_ND[rows])
        state = bundle.encoder.encode(vectors_TD[None], torch.tensor([len(rows)]))
        return bundle.encoder.query(state, vectors_TD[-1:])[0].numpy()


class Load:
    """Clicks of random users at a steady pace, from a thread, until `stop`."""

    def __init__(
        self, system: System, *, seed: int, per_second: int = 400, num_items: int = 220
    ) -> None:
        self._system = system
        self._rng = np.random.default_rng(seed)
        self._per_tick = max(1, per_second // 50)
        self._high = (60, num_items)
        self._stop = threading.Event()
        self.sent = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            for user, item in self._rng.integers(self._high, size=(self._per_tick, 2)).tolist():
                self._system.click(f"u{user}", f"i{item}")
                self.sent += 1

    def stop(self) -> int:
        """Stop and return how many clicks were sent; every one is acknowledged."""
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join(10)
            self._system.flush()
        return self.sent


@pytest.fixture
def make_system(topic_names: Callable[[], str], tmp_path: Path) -> Iterator[Callable[..., System]]:
    """Make topics of their own on a broker; keyword arguments override sections of settings."""
    made: list[System] = []

    def make(broker: LocalKafka, /, **sections: dict[str, Any]) -> System:
        prefix = topic_names()
        names = ("clicks", "recommendations", "sessions", "models", "dead_letters")
        kafka_section = {
            "bootstrap_servers": broker.bootstrap_servers,
            "app": prefix + "app",
            "session_timeout_ms": 6000,
        }
        settings = Settings(
            kafka=kafka_section | sections.pop("kafka", {}),
            topics={name: prefix + name for name in names}
            | {"partitions": 2}
            | sections.pop("topics", {}),
            store={"url": str(tmp_path / "models")},
            **sections,
        )
        made.append(System(settings))
        return made[-1]

    yield make
    for system in made:
        system.close()


@pytest.fixture
def system(kafka: LocalKafka, make_system: Callable[..., System]) -> System:
    """A system with two partitions on the shared broker."""
    return make_system(kafka)


@pytest.fixture
def start_load() -> Iterator[Callable[..., Load]]:
    """Start publishing clicks to a system."""
    started: list[Load] = []

    def start(system: System, **options: System) -> Load:
        started.append(Load(system, **options))
        return started[-1]

    yield start
    for running in started:
        running.stop()
