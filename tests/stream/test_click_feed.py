from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from stream import clients
from stream.click_feed import ClickFeed, Reading
from stream.local_kafka import LocalKafka
from stream.settings import KafkaSettings

pytestmark = pytest.mark.kafka

NOW = "2026-11-23T10:00:00Z"
TTL_MS = 30 * 86_400_000


class Topic:
    """One topic of two partitions, its writer and its feeds."""

    def __init__(self, settings: KafkaSettings, name: str) -> None:
        self.settings, self.name = settings, name
        self.feeds: list[ClickFeed] = []
        with clients.admin(settings) as admin:
            admin.create_topics(
                {name: {"num_partitions": 2, "replication_factor": 1, "configs": {}}},
                timeout_ms=20_000,
            )
            admin.wait_for_topics([name], timeout_ms=20_000)
        self.producer = clients.producer(settings, client_id="test")

    def send(self, partition: int, item: str, **fields: Any) -> None:
        click = {"user_id": "u", "item_id": item, "timestamp": NOW, **fields}
        self.send_bytes(partition, json.dumps(click).encode())

    def send_bytes(self, partition: int, value: bytes | None) -> None:
        self.producer.send(self.name, value=value, key=b"u", partition=partition)
        self.producer.flush(timeout=10)

    def feed(self, offsets: dict[int, int] | None = None, **start: Any) -> ClickFeed:
        consumer = clients.trainer_consumer(self.settings, client_id="test-feed")
        feed = ClickFeed(consumer, self.name, ttl_ms=TTL_MS)
        self.feeds.append(feed)
        feed.start(offsets or {}, **{"start_from": "earliest", **start})
        return feed

    def close(self) -> None:
        for feed in self.feeds:
            feed.close()
        self.producer.close(timeout=5)


@pytest.fixture
def topic(kafka: LocalKafka, topic_names: Callable[[], str]) -> Iterator[Topic]:
    prefix = topic_names()
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, app=prefix + "app")
    made = Topic(settings, prefix + "clicks")
    yield made
    made.close()


def read(feed: ClickFeed, num: int, wait_until: Callable[..., None]) -> list[Reading]:
    readings: list[Reading] = []

    def enough() -> bool:
        readings.extend(feed.poll(timeout_ms=50))
        return len(readings) >= num

    wait_until(enough, 20, f"{num} records are read")
    return readings


def items(readings: list[Reading]) -> list[str]:
    return sorted(reading.click.item_id for reading in readings if reading.click)


def test_it_reads_all_partitions_and_moves_its_offsets(topic: Topic, wait_until: Any) -> None:
    for partition, item in ((0, "a"), (1, "b"), (0, "c")):
        topic.send(partition, item)
    feed = topic.feed()

    readings = read(feed, 3, wait_until)

    assert items(readings) == ["a", "b", "c"]
    assert feed.next_offsets == {0: 2, 1: 1}
    assert feed.lag() == {0: 0, 1: 0}


def test_it_goes_on_at_the_given_offsets_and_starts_others_by_policy(
    topic: Topic, wait_until: Any
) -> None:
    for partition, item in ((0, "a"), (0, "b"), (1, "c")):
        topic.send(partition, item)

    feed = topic.feed({0: 1}, start_from="latest")

    assert items(read(feed, 1, wait_until)) == ["b"]
    assert feed.next_offsets == {0: 2, 1: 1}


def test_what_is_no_click_is_passed_over_with_its_reason(topic: Topic, wait_until: Any) -> None:
    topic.send_bytes(0, b"{")
    topic.send_bytes(0, None)
    topic.send(0, "old", timestamp="2001-01-01T00:00:00Z")
    topic.send(0, "other", type="purchase")
    topic.send(0, "good")

    readings = read(topic.feed(), 5, wait_until)

    assert [reading.reason for reading in readings] == [
        "malformed", "malformed", "ancient", "unsupported", "",
    ]  # fmt: skip
    assert items(readings) == ["good"]


def test_offsets_outside_the_log_are_counted_and_it_goes_on_at_the_edge(
    topic: Topic, wait_until: Any
) -> None:
    for item in "abcd":
        topic.send(0, item)
    delete_before(topic, partition=0, offset=3)

    feed = topic.feed({0: 1, 1: 40})

    assert feed.next_offsets == {0: 3, 1: 0}
    assert feed.lost == 2 + 40
    assert items(read(feed, 1, wait_until)) == ["d"]


def delete_before(topic: Topic, *, partition: int, offset: int) -> None:
    from kafka import TopicPartition

    with clients.admin(topic.settings) as admin:
        assert isinstance(admin, KafkaAdminClient)
        admin.delete_records({TopicPartition(topic.name, partition): offset}, timeout_ms=10_000)


def test_the_group_sees_the_offsets(topic: Topic, wait_until: Any) -> None:
    from kafka import TopicPartition

    topic.send(0, "a")
    feed = topic.feed()
    read(feed, 1, wait_until)

    feed.commit()

    watcher = clients.trainer_consumer(topic.settings, client_id="watcher")
    assert watcher.committed(TopicPartition(topic.name, 0), timeout_ms=10_000) == 1
    watcher.close()


def test_a_topic_that_does_not_exist_is_named(topic: Topic) -> None:
    consumer = clients.trainer_consumer(topic.settings, client_id="test-feed")
    feed = ClickFeed(consumer, topic.name + "-missing", ttl_ms=TTL_MS)

    with pytest.raises(KafkaError, match="-missing does not exist"):
        feed.start({}, start_from="earliest")
    feed.close()
