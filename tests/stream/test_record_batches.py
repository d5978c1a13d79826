"""Batches that are encoded here are read by the client as those of `send` are."""

import random
import time
from contextlib import closing

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import (
    IllegalStateError,
    InvalidRecordError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
)
from kafka.record.memory_records import MemoryRecords

from stream.batch import Send
from stream.changelog import read_to_end
from stream.producers import NotDeliveredError, deliver, opened
from stream.record_batches import append, failures
from tests.stream.buffered import Buffer

LONG = b"x" * 5_000
RECORDS = [
    Send("a", 0, b"k", b"v", []),
    Send("a", 1, None, LONG, [("h", b"1"), ("empty", b""), ("é", LONG)]),
    Send("b", 0, b"k", None, [("h", b"2")]),
    Send("a", 0, LONG, b"", []),
    *(Send("a", 1, b"%d" % n, b"v", []) for n in range(70)),
]


def read(producer):
    """Return what the client's reader finds in the buffer, by partition."""
    found = {}
    for batch in producer.batches:
        batch.records.close()
        for part in MemoryRecords(batch.records.buffer()):
            assert part.validate_crc()
            found.setdefault(batch.topic_partition, []).extend(part)
    return found


def test_every_record_is_read_as_it_was_given_and_in_order():
    producer = Buffer()
    before_ms = time.time_ns() // 1_000_000

    append(producer, RECORDS)

    found = read(producer)
    for place in {record[:2] for record in RECORDS}:
        given = [record for record in RECORDS if record[:2] == place]
        records = found[TopicPartition(*place)]
        assert [(r.key, r.value, r.headers) for r in records] == [r[2:] for r in given]
        assert [r.offset for r in records] == list(range(len(given)))
        assert all(before_ms <= r.timestamp <= before_ms + 60_000 for r in records)


def test_no_batch_is_larger_than_the_batch_size_unless_one_record_is():
    producer = Buffer(batch_size=8_000)
    sizes = [3_000, 3_000, 3_000, 10_000, 100]

    append(producer, [Send("a", 0, None, b"x" * size, []) for size in sizes])

    assert [batch.record_count for batch in producer.batches] == [2, 1, 1, 1]
    assert [len(r.value) for r in read(producer)[TopicPartition("a", 0)]] == sizes


def test_a_record_above_the_request_size_is_refused():
    with pytest.raises(MessageSizeTooLargeError, match="a/0"):
        append(Buffer(), [Send("a", 0, None, b"x" * (1 << 20), [])])


@pytest.mark.parametrize("closed", ["producer", "buffer"])
def test_a_closed_producer_takes_nothing(closed):
    producer = Buffer()
    if closed == "producer":
        producer._closed = True
    else:
        producer._accumulator.close()

    with pytest.raises(IllegalStateError):
        append(producer, RECORDS)

    assert not producer._accumulator._incomplete


def test_what_is_acknowledged_has_not_failed():
    producer = Buffer()
    deliveries = append(producer, RECORDS)

    assert failures(deliveries) == [None] * 3, "still under way"
    producer.settle()

    assert failures(deliveries) == []


def test_a_refused_batch_says_why():
    producer = Buffer()
    deliveries = append(producer, RECORDS)

    producer.settle(error := InvalidRecordError("planted"))

    assert failures(deliveries) == [error] * 3


def test_a_batch_that_is_split_has_succeeded_when_all_its_parts_have():
    producer = Buffer()
    deliveries = append(producer, RECORDS[4:])
    producer.split()
    producer.split()
    first, *others = producer.batches

    first.complete(0, -1)
    assert failures(deliveries) == [None] * 3
    for batch in others:
        batch.complete(0, -1)

    assert failures(deliveries) == []
    assert sum(batch.record_count for batch in [first, *others]) == 70


def test_a_wait_for_a_batch_ends_when_it_is_split():
    producer = Buffer()
    append(producer, RECORDS[4:])
    (whole,) = producer.batches

    producer.split()

    assert whole.produce_future.wait(timeout=1)


def test_an_open_batch_is_gone_on_with_by_the_client_itself():
    producer = Buffer()
    append(producer, RECORDS[:1])

    tp = TopicPartition("a", 0)
    producer._accumulator.append(tp, None, b"late", b"w", [("h", b"3")])

    assert [(r.key, r.offset) for r in read(producer)[tp]] == [(b"k", 0), (b"late", 1)]


class Flushed(Buffer):
    """A producer whose flush does as it is told."""

    def __init__(self, flush):
        super().__init__()
        self.flush = lambda timeout: flush(self)


def test_a_flush_that_returns_with_a_batch_under_way_proves_nothing():
    with pytest.raises(NotDeliveredError):
        deliver(Flushed(lambda producer: None), RECORDS, 1)


def test_a_final_error_of_any_batch_is_raised_before_another():
    def flush(producer):
        first, second, *_ = producer.batches
        first.complete_exceptionally(error := KafkaTimeoutError("planted"), lambda _: error)
        final = MessageSizeTooLargeError("planted")
        second.complete_exceptionally(final, lambda _: final)

    with pytest.raises(MessageSizeTooLargeError):
        deliver(Flushed(flush), RECORDS, 1)


@pytest.mark.kafka
@pytest.mark.parametrize("compression", [None, "lz4"])
def test_brokers_that_take_small_batches_only_get_every_record(kafka, topic_names, compression):
    topic, servers = topic_names(), kafka.bootstrap_servers
    records = [
        Send(topic, n % 2, b"%d" % n, random.Random(n).randbytes(400), [("n", b"1")])
        for n in range(64)
    ]
    with closing(KafkaAdminClient(bootstrap_servers=servers)) as admin:
        admin.create_topics([NewTopic(topic, 2, 1, topic_configs={"max.message.bytes": "3000"})])
    producer = opened(
        lambda: KafkaProducer(bootstrap_servers=servers, compression_type=compression),
        *([topic], lambda: None),
    )

    with closing(producer):
        deliver(producer, records, 30)

    ends = {TopicPartition(topic, p): 32 for p in range(2)}
    with closing(KafkaConsumer(bootstrap_servers=servers)) as reader:
        found = list(read_to_end(reader, ends, between_slices=lambda: True, stall_seconds=20))
    for partition in range(2):
        assert [(r.key, r.value, r.headers) for r in found if r.partition == partition] == [
            record[2:] for record in records if record.partition == partition
        ]
