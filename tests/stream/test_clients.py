"""The clients: their settings as they really are, and what an unreachable broker looks like."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
from kafka import TopicPartition
from kafka.errors import NoOffsetForPartitionError

from stream.clients import (
    KafkaUnreachableError,
    admin,
    click_consumer,
    producer,
    reader,
    trainer_consumer,
)
from stream.local_kafka import LocalKafka
from stream.settings import KafkaSettings, TopicSettings
from stream.topics import ensure

MIB = 1024 * 1024

READER = {
    "enable_auto_commit": False,
    "auto_offset_reset": "none",
    "isolation_level": "read_committed",
    "fetch_max_bytes": 16 * MIB,
    "max_partition_fetch_bytes": 2 * MIB,
    "fetch_max_wait_ms": 500,
    "allow_auto_create_topics": False,
    "key_deserializer": None,
    "value_deserializer": None,
    "group_id": None,
    "group_instance_id": None,
}
MEMBER = READER | {
    "group_id": "shop",
    "fetch_max_wait_ms": 50,
    "max_poll_records": 500,
    "max_poll_interval_ms": 60_000,
    "session_timeout_ms": 10_000,
    "heartbeat_interval_ms": 1_000,
}
PRODUCER = {
    "transactional_id": None,
    "enable_idempotence": True,
    "acks": -1,
    "delivery_timeout_ms": 8_000,
    "request_timeout_ms": 5_000,
    "max_block_ms": 8_000,
    "retry_backoff_ms": 10,
    "linger_ms": 5,
    "batch_size": 524_288,
    "compression_type": "lz4",
    "allow_auto_create_topics": False,
    "key_serializer": None,
    "value_serializer": None,
}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def settings_for(kafka: LocalKafka, **changes: object) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, app="shop", **changes)


def part(config: dict[str, object], of: dict[str, object]) -> dict[str, object]:
    return {key: config[key] for key in of}


@pytest.mark.kafka
def test_consumers_have_exactly_the_settings_of_the_guarantees(kafka, stack):
    settings = settings_for(kafka)

    clicks = stack.enter_context(closing(click_consumer(settings, client_id="c")))
    trainer = stack.enter_context(closing(trainer_consumer(settings, client_id="c")))
    read = stack.enter_context(closing(reader(settings, client_id="c")))
    raw = stack.enter_context(
        closing(reader(settings, client_id="c", isolation="read_uncommitted"))
    )

    assert part(clicks.config, MEMBER) == MEMBER
    assert part(trainer.config, MEMBER) == MEMBER | {"group_id": "shop-trainer"}
    assert part(read.config, READER) == READER
    assert part(raw.config, READER) == READER | {"isolation_level": "read_uncommitted"}


@pytest.mark.kafka
def test_the_producer_has_exactly_the_settings_of_the_guarantees(kafka, stack):
    made = stack.enter_context(closing(producer(settings_for(kafka), client_id="p")))

    assert part(made.config, PRODUCER) == PRODUCER


@pytest.mark.kafka
def test_pass_through_settings_reach_the_clients(kafka, stack):
    settings = settings_for(
        kafka,
        compression="none",
        consumer={"fetch_min_bytes": "7", "reconnect_backoff_ms": "60"},
        producer={"batch_size": "1000"},
    )

    read = stack.enter_context(closing(reader(settings, client_id="c")))
    made = stack.enter_context(closing(producer(settings, client_id="p")))
    manager = stack.enter_context(closing(admin(settings)))

    assert read.config["fetch_min_bytes"] == 7
    assert made.config["batch_size"] == 1000
    assert made.config["compression_type"] is None
    assert manager.config["reconnect_backoff_ms"] == 60


@pytest.mark.kafka
def test_what_the_producer_sends_a_reader_reads_and_a_first_start_is_not_silent(
    kafka, stack, topic_names
):
    topic = topic_names() + "clicks"
    settings = settings_for(kafka)
    with closing(admin(settings)) as manager:
        manager.create_topics({topic: {"num_partitions": 1}}, wait_for_metadata=True)
    made = stack.enter_context(closing(producer(settings, client_id="p")))
    read = stack.enter_context(closing(reader(settings, client_id="c")))

    sent = made.send(topic, value=b"v", key=b"k", headers=[("h", b"1")], partition=0)
    made.flush(timeout=10)
    read.assign([TopicPartition(topic, 0)])

    assert sent.succeeded()
    with pytest.raises(NoOffsetForPartitionError):
        read.poll(timeout_ms=5_000)
    read.seek(TopicPartition(topic, 0), 0)
    ((record,),) = read.poll(timeout_ms=5_000).values()
    assert (record.key, record.value, record.headers) == (b"k", b"v", [("h", b"1")])


@pytest.mark.kafka
def test_a_click_of_2_mb_reaches_the_consumer_to_be_buried_there(kafka, stack, topic_names):
    name = topic_names()
    settings = settings_for(kafka, producer={"max_request_size": 3 * MIB, "batch_size": 1})
    topics = TopicSettings(
        clicks=name + "c", recommendations=name + "r", sessions=name + "s", models=name + "m",
        dead_letters=name + "d", partitions=1,
    )  # fmt: skip
    ensure(settings, topics)
    made = stack.enter_context(closing(producer(settings, client_id="p")))
    read = stack.enter_context(closing(click_consumer(settings, client_id="c")))

    made.send(topics.clicks, value=os.urandom(2_000_000), partition=0)
    made.send(topics.clicks, value=b"next", partition=0)
    made.flush(timeout=20)
    clicks = TopicPartition(topics.clicks, 0)
    read.assign([clicks])
    read.seek(clicks, 0)
    sizes: list[int] = []
    deadline = time.monotonic() + 20
    while len(sizes) < 2 and time.monotonic() < deadline:
        sizes += [len(record.value) for record in read.poll(timeout_ms=500).get(clicks, [])]

    assert sizes == [2_000_000, 4]


def test_a_closed_port_is_named_with_its_setting_at_once():
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = time.monotonic()

    with pytest.raises(KafkaUnreachableError) as caught:
        producer(KafkaSettings(bootstrap_servers=address), client_id="p")

    assert f"kafka.bootstrap_servers = {address}: no broker can be reached" in str(caught.value)
    assert "nextclick kafka up" in str(caught.value)
    assert time.monotonic() - started < 5


def test_a_port_that_is_not_kafkas_is_named_within_the_bound():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        settings = KafkaSettings(bootstrap_servers=address, bootstrap_timeout_ms=1_000)
        started = time.monotonic()

        with pytest.raises(KafkaUnreachableError, match="no Kafka broker answered within 1 s"):
            admin(settings)

    assert time.monotonic() - started < 10
