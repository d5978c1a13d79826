"""Topics and settings of one run, what is announced to its workers, and how far they have come."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from cli.settings import Settings
from model.bundle import Published
from stream import clients, topics
from stream.announcements import announce
from trainer.publish import announcement

QUICK = {
    "session_timeout_ms": 2_000,
    "heartbeat_interval_ms": 300,
    "max_poll_interval_ms": 20_000,
}
_ANNOUNCE_SECONDS = 5.0
_ASK_MS = 3_000


def make_settings(
    bootstrap_servers: str, prefix: str, store_url: str, **sections: Mapping[str, Any]
) -> Settings:
    """Return settings whose topics and group begin with `prefix`; `sections` add to it."""
    names = ("clicks", "recommendations", "sessions", "models", "dead_letters")
    fixed: dict[str, dict[str, Any]] = {
        "kafka": {"bootstrap_servers": bootstrap_servers, "app": f"{prefix}app"} | QUICK,
        "topics": {name: f"{prefix}{name}" for name in names},
        "store": {"url": store_url},
        # What the load poisons is no producer's bug that a worker has to stop for.
        "worker": {"breaker": {"max_dead_share": 0.5}},
    }
    merged = {name: fixed.get(name, {}) | dict(given) for name, given in sections.items()}
    return Settings.model_validate(fixed | merged)


def for_slot(settings: Settings, slot: str) -> Settings:
    """Return the settings of one worker process."""
    processing = settings.processing.model_copy(update={"slot": slot})
    return settings.model_copy(update={"processing": processing})


class System:
    """One application's topics on a broker; `with` creates them and closes the clients."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._producer: KafkaProducer | None = None

    def __enter__(self) -> System:
        topics.ensure(self.settings.kafka, self.settings.topics)
        return self

    def __exit__(self, *error: object) -> None:
        self._drop_producer()

    def announce(self, published: Published) -> bool:
        """Tell the workers of a version; False when no broker takes it now."""
        try:
            if self._producer is None:
                self._producer = clients.producer(self.settings.kafka, client_id="chaos-versions")
            announce(
                self._producer,
                self.settings.topics.models,
                announcement(published),
                timeout_seconds=_ANNOUNCE_SECONDS,
            )
        except KafkaError:
            self._drop_producer()
            return False
        return True

    def _drop_producer(self) -> None:
        if self._producer is not None:
            with suppress(KafkaError):
                self._producer.close(timeout=2)
            self._producer = None


@dataclass(frozen=True)
class Reading:
    """Where every clicks partition stood at a moment: committed by the workers, and its end."""

    at: float
    committed: dict[int, int]
    ends: dict[int, int]

    @property
    def lag(self) -> int:
        """Clicks that are not answered yet."""
        return sum(end - self.committed.get(p, 0) for p, end in self.ends.items())


class Gauge:
    """Reads in a thread how far the workers have come; brokers that are away leave gaps.

    It asks for offsets as they are, without waiting for transactions, and joins no group.
    """

    def __init__(self, settings: Settings, *, every_seconds: float) -> None:
        self._settings = settings
        self._every_seconds = every_seconds
        self._stop = threading.Event()
        self.readings: list[Reading] = []
        self._thread = threading.Thread(target=self._run, name="gauge", daemon=True)
        self._thread.start()

    @property
    def latest(self) -> Reading:
        """The last reading; nothing at all before the first."""
        return self.readings[-1] if self.readings else Reading(0.0, {}, {})

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join(2 * _ASK_MS / 1000 + 10)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._read_on()
            except KafkaError:
                self._stop.wait(self._every_seconds)

    def _read_on(self) -> None:
        kafka = self._settings.kafka.model_copy(update={"request_timeout_ms": _ASK_MS})
        admin = clients.admin(kafka, client_id="chaos-gauge")
        reader = clients.reader(kafka, client_id="chaos-gauge", isolation="read_uncommitted")
        try:
            while not self._stop.is_set():
                committed = committed_offsets(admin, self._settings)
                parts = [TopicPartition(self._settings.topics.clicks, p) for p in committed]
                ends = reader.end_offsets(parts, timeout_ms=_ASK_MS)
                self.readings.append(
                    Reading(
                        time.monotonic(), committed, {tp.partition: n for tp, n in ends.items()}
                    )
                )
                self._stop.wait(self._every_seconds)
        finally:
            reader.close()
            admin.close()


def committed_offsets(admin: KafkaAdminClient, settings: Settings) -> dict[int, int]:
    """Return the workers' offset of every clicks partition, 0 where there is none."""
    group = settings.kafka.app
    parts = [TopicPartition(settings.topics.clicks, p) for p in range(settings.topics.partitions)]
    found = admin.list_group_offsets({group: parts})[group]  # type: ignore[no-untyped-call]
    return {tp.partition: max(0, found[tp].offset) for tp in parts}
