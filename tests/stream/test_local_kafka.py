"""Local Kafka: real brokers, their data, their faults, and nothing left behind."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kafka import TopicPartition
from kafka.admin import NewTopic

from stream import clients
from stream.kafka_runtime import KafkaRuntime
from stream.local_kafka import LocalKafka
from stream.settings import KafkaSettings

WaitUntil = Callable[..., None]


def settings_of(kafka: LocalKafka) -> KafkaSettings:
    return KafkaSettings.model_validate({"bootstrap_servers": kafka.bootstrap_servers})


def create_topic(kafka: LocalKafka, topic: str) -> None:
    admin = clients.admin(settings_of(kafka))
    try:
        admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=-1)])
    finally:
        admin.close()


def produce(kafka: LocalKafka, topic: str, value: bytes) -> None:
    producer = clients.producer(settings_of(kafka), client_id="test")
    try:
        producer.send(topic, value).get(timeout=10)
    finally:
        producer.close(timeout=5)


def values(kafka: LocalKafka, topic: str) -> list[bytes]:
    """Read the topic's one partition from its beginning to its end."""
    consumer = clients.reader(settings_of(kafka), client_id="test")
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        end = consumer.end_offsets([partition])[partition]
        read: list[bytes] = []
        deadline = time.monotonic() + 20
        while consumer.position(partition) < end and time.monotonic() < deadline:
            polled = consumer.poll(timeout_ms=200)
            read.extend(record.value for records in polled.values() for record in records)
        return read
    finally:
        consumer.close()


@pytest.mark.kafka
def test_a_click_that_was_produced_is_consumed(
    kafka: LocalKafka, topic_names: Callable[[], str]
) -> None:
    topic = topic_names() + "clicks"
    create_topic(kafka, topic)

    produce(kafka, topic, b"a click")

    assert values(kafka, topic) == [b"a click"]


@pytest.mark.kafka
def test_topics_and_records_survive_a_restart_on_other_ports(
    kafka_runtime: KafkaRuntime, tmp_path: Path
) -> None:
    kafka = LocalKafka(tmp_path / "data", runtime=kafka_runtime)
    with kafka:
        create_topic(kafka, "clicks")
        produce(kafka, "clicks", b"kept")

    with kafka:
        assert values(kafka, "clicks") == [b"kept"]
