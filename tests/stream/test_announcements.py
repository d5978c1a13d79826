from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from stream import clients
from stream.announcements import (
    ModelsTopic,
    announce,
    key_of,
    latest,
    restoring,
    stored_version,
)
from stream.local_kafka import LocalKafka
from stream.messages import Gate, ModelAnnouncement
from stream.settings import KafkaSettings


def announcement(version: str, name: str = "default") -> ModelAnnouncement:
    return ModelAnnouncement(
        name=name,
        version=version,
        kind="bundle",
        uri=f"file:///models/{name}/{version}",
        manifest_sha256="0" * 64,
        bytes=1,
        created_at=1,
        encoder_version="e",
        trained_through={0: 5},
        metrics={"mrr_at_20": 0.25},
        gate=Gate(verdict="accepted"),
    )


class Models:
    """One models topic."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self.settings, self.topic = settings, topic
        with clients.admin(settings) as admin:
            options = {"num_partitions": 1, "replication_factor": 1, "configs": {}}
            admin.create_topics({topic: options}, timeout_ms=20_000)
            admin.wait_for_topics([topic], timeout_ms=20_000)
        self.producer = clients.producer(settings, client_id="test")

    def send(self, message: ModelAnnouncement) -> None:
        announce(self.producer, self.topic, message, timeout_seconds=10)

    def latest(self, name: str = "default") -> ModelAnnouncement | None:
        reader = clients.reader(self.settings, client_id="test-reader")
        try:
            return latest(reader, self.topic, name)
        finally:
            reader.close()


@pytest.fixture
def models(kafka: LocalKafka, topic_names: Callable[[], str]) -> Iterator[Models]:
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
    made = Models(settings, topic_names() + "models")
    yield made
    made.producer.close(timeout=5)


@pytest.mark.kafka
def test_without_an_announcement_there_is_no_version(models: Models) -> None:
    assert models.latest() is None


@pytest.mark.kafka
def test_the_last_announcement_of_a_name_is_found(models: Models) -> None:
    for message in (announcement("v1"), announcement("v2"), announcement("v9", "other")):
        models.send(message)

    assert models.latest() == announcement("v2")
    assert models.latest("other") == announcement("v9", "other")
    assert models.latest("third") is None


@pytest.mark.kafka
def test_an_unreadable_announcement_is_passed_over(models: Models) -> None:
    models.send(announcement("v1"))
    models.producer.send(models.topic, value=b"{", key=key_of("default"), partition=0)
    models.producer.flush(timeout=10)

    assert models.latest() == announcement("v1")


@pytest.mark.kafka
def test_the_topic_answers_with_clients_of_its_own(models: Models) -> None:
    topic = ModelsTopic(models.settings, models.topic, client_id="test-topic")

    before = topic.latest("default")
    topic.announce(announcement("v1"))

    assert before is None
    assert topic.latest("default") == announcement("v1")


def test_a_restored_version_is_a_new_one_with_the_files_of_the_old() -> None:
    gate = Gate(verdict="restored", reason="by hand")

    first = restoring(announcement("v1"), "v3", gate)
    again = restoring(first, "v4", gate)

    assert (first.version, first.restores, first.uri) == ("v3", "v1", announcement("v1").uri)
    assert first.gate == gate
    assert (again.version, again.restores) == ("v4", "v1")
    assert [stored_version(a) for a in (announcement("v1"), first, again)] == ["v1"] * 3
