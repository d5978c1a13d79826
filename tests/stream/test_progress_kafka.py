"""The watch over partitions that are silently not fetched, on real Kafka."""

import uuid
from contextlib import closing

import pytest
from kafka import KafkaProducer, TopicPartition
from prometheus_client import CollectorRegistry, Gauge

from stream.clients import admin, producer, reader
from stream.progress import PartitionStalledError, ProgressWatch
from stream.settings import KafkaSettings

pytestmark = pytest.mark.kafka


def one_partition_each(settings, topic, num_partitions):
    with closing(admin(settings)) as manager:
        manager.create_topics({topic: {"num_partitions": num_partitions}}, wait_for_metadata=True)
    return [TopicPartition(topic, number) for number in range(num_partitions)]


@pytest.fixture
def settings(kafka):
    return KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)


def watch_of(consumer):
    gauge = Gauge("stalled", "s", ("topic", "partition"), registry=CollectorRegistry())
    return ProgressWatch(consumer, gauge, max_records=500)


def test_a_client_that_stopped_fetching_one_partition_is_found(
    settings, topic_names, monkeypatch, wait_until
):
    kept, flowing = one_partition_each(settings, topic_names() + "clicks", 2)
    with closing(reader(settings, client_id="r")) as consumer, \
            closing(producer(settings, client_id="p")) as sender:  # fmt: skip
        consumer.assign([kept, flowing])
        consumer.seek_to_beginning(kept, flowing)
        next_offsets = {kept: consumer.position(kept), flowing: consumer.position(flowing)}
        # As in kafka-python 3.0.0 to 3.0.8: assigned, not paused, but left out of every fetch.
        fetchable = consumer._fetcher._fetchable_partitions
        monkeypatch.setattr(
            consumer._fetcher, "_fetchable_partitions",
            lambda: [tp for tp in fetchable() if tp != kept],
        )  # fmt: skip
        watch, now, caught = watch_of(consumer), 0.0, []

        def stalled():
            nonlocal now
            now += 5.0
            for tp in next_offsets:
                sender.send(tp.topic, b"{}", partition=tp.partition)
            sender.flush(timeout=10)
            polled = consumer.poll(timeout_ms=200)
            for tp, records in polled.items():
                next_offsets[tp] = records[-1].offset + 1
            try:
                watch.check(polled, next_offsets, now)
            except PartitionStalledError as error:
                caught.append(str(error))
            return caught

        wait_until(stalled, 60, "the watch fires")

    assert f"{kept.topic}/{kept.partition} stands at 0" in caught[0]
    assert next_offsets[flowing] > 0
    assert now >= 35


def test_the_commit_marker_at_the_end_is_not_taken_for_a_record(settings, topic_names, wait_until):
    (tp,) = one_partition_each(settings, topic_names() + "clicks", 1)
    sender = KafkaProducer(
        bootstrap_servers=settings.bootstrap_servers, transactional_id=uuid.uuid4().hex
    )
    with closing(sender), closing(reader(settings, client_id="r")) as consumer:
        sender.init_transactions()
        sender.begin_transaction()
        sender.send(tp.topic, b"{}", partition=0)
        sender.flush(timeout=10)
        sender.commit_transaction()
        consumer.assign([tp])
        consumer.seek_to_beginning(tp)
        polled = {}
        wait_until(lambda: polled.update(consumer.poll(timeout_ms=200)) or polled, 30, "a record")
        next_offsets = {tp: polled[tp][-1].offset + 1}
        watch = watch_of(consumer)
        consumer.poll(timeout_ms=500)  # an idle poll, which reads the marker

        assert next_offsets[tp] < consumer.end_offsets([tp])[tp]
        for now in range(0, 300, 5):
            watch.check({}, next_offsets, float(now))
