"""A pipe on real Kafka behind a fault proxy: raw clients for the defects, ours for the guards."""

import gc
import itertools
import time
import warnings
from typing import NamedTuple

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.structs import OffsetAndMetadata

from benchmarks.chaos.proxy import FaultProxy
from stream import clients
from stream.assignment import Assignment, membership
from stream.at_least_once import AtLeastOnce
from stream.batch import Send
from stream.exactly_once import ExactlyOnce
from stream.settings import KafkaSettings, ProcessingSettings

SOURCE_PARTITIONS = 3
OUTPUT_PARTITIONS = 2
PROCESSING = ProcessingSettings(guarantee="exactly_once", slot="a", transaction_timeout_ms=10_000)


class Pipe:
    """An input topic, an output topic, a group, and who reads and writes them.

    Every source partition starts with the committed offset 0. Timeouts are short.
    """

    def __init__(self, broker, proxy, name):
        self.proxy = proxy
        self._watermarks = broker.watermarks
        self.source, self.output, self.group = name + "in", name + "out", name + "app"
        self.settings = KafkaSettings(
            bootstrap_servers=proxy.bootstrap_servers,
            app=self.group,
            delivery_timeout_ms=1500,
            request_timeout_ms=700,
            session_timeout_ms=6000,
            heartbeat_interval_ms=500,
            producer={"max_block_ms": 20_000},  # the first transaction makes an internal topic
        )
        self._numbers = itertools.count(1)
        self._open = []
        counts = {self.source: SOURCE_PARTITIONS, self.output: OUTPUT_PARTITIONS}
        broker.admin.create_topics(
            {t: {"num_partitions": n, "replication_factor": 1} for t, n in counts.items()}
        )
        broker.admin.wait_for_topics(list(counts))
        self._observer = KafkaConsumer(
            bootstrap_servers=broker.address,
            group_id=self.group,
            isolation_level="read_committed",
            enable_auto_commit=False,
        )
        self._open.append(self._observer.close)
        self._observer.commit(self.offsets(0, partitions=range(SOURCE_PARTITIONS)), 10_000)

    def close(self):
        for close in reversed(self._open):
            close()

    # What became of it

    def tp(self, partition=0):
        return TopicPartition(self.source, partition)

    def offsets(self, offset, *, partitions=(0,)):
        return {self.tp(p): OffsetAndMetadata(offset, "", -1) for p in partitions}

    def committed(self, partition=0):
        """The committed offset; waits while a transaction on it is pending."""
        return self._observer.committed(self.tp(partition), timeout_ms=20_000)

    def records(self, partition=0, *, settled=True):
        """The committed values of an output partition, once no transaction on it is pending."""
        reader, tp = self._observer, TopicPartition(self.output, partition)
        deadline = time.monotonic() + 20
        while settled and self._end(self._watermarks, tp) != self._end(reader, tp):
            assert time.monotonic() < deadline
        reader.assign([tp])
        reader.seek_to_beginning(tp)
        end, found = self._end(reader, tp), []
        while reader.position(tp, timeout_ms=5000) < end:
            assert time.monotonic() < deadline
            found += [r.value for batch in reader.poll(timeout_ms=100).values() for r in batch]
        return found

    @staticmethod
    def _end(consumer, tp):
        return consumer.end_offsets([tp], timeout_ms=10_000)[tp]

    # Raw clients

    def raw_producer(self, **overrides):
        """A transactional producer as the library gives it, initialised."""
        config = {
            "bootstrap_servers": self.proxy.bootstrap_servers,
            "client_id": "raw",
            "transactional_id": f"{self.group}-raw",
            "transaction_timeout_ms": 10_000,
            "delivery_timeout_ms": 1500,
            "request_timeout_ms": 700,
            "max_block_ms": 20_000,
            "retry_backoff_ms": 20,
            "linger_ms": 0,
        }
        producer = KafkaProducer(**config | overrides)
        self._open.append(lambda: end(producer))
        if producer.config["transactional_id"]:
            producer.init_transactions()
        return producer

    def send(self, producer, value, partition=0):
        return producer.send(self.output, value, partition=partition)

    # Our own

    def member(self, processing=PROCESSING, **overrides):
        """A consumer of the group that holds partitions; they are paused."""
        settings = self.settings.model_copy(update=overrides)
        consumer = clients.click_consumer(settings, processing, client_id="member")
        self._open.append(lambda: consumer.close(autocommit=False, timeout_ms=2000))
        consumer.subscribe([self.source], listener=Assignment(consumer))
        consumer.partitions_for_topic(self.source)  # known to the first join, or it joins twice
        deadline = time.monotonic() + 20
        while not consumer.assignment() or membership(consumer) is None:
            assert time.monotonic() < deadline
            consumer.poll(timeout_ms=50)
        return consumer

    def exactly_once(self, consumer):
        """The wrapper; its producers are the clients producer-1, producer-2, …"""
        return self._committer(
            ExactlyOnce,
            consumer,
            lambda name: clients.transactional_producer(
                self.settings, PROCESSING, client_id=name, slot=PROCESSING.slot
            ),
        )

    def at_least_once(self, consumer):
        """The other wrapper; its producers are named likewise."""
        return self._committer(
            AtLeastOnce, consumer, lambda name: clients.producer(self.settings, client_id=name)
        )

    def _committer(self, kind, consumer, make):
        deadline = time.monotonic() + 60

        def beat():
            assert time.monotonic() < deadline

        committer = kind(
            consumer,
            lambda: make(f"producer-{next(self._numbers)}"),
            [self.output],
            delivery_timeout_seconds=self.settings.delivery_timeout_ms / 1000,
            beat=beat,
        )
        self._open.append(committer.close)
        return committer

    def sends(self, *values, partition=0):
        return [Send(self.output, partition, b"k", value, []) for value in values]

    def batch(self, committer, member, values, *, before=0, after, partition=0):
        """Commit one batch of `values`; returns its outcome."""
        tp = self.tp(partition)
        return committer.commit(self.sends(*values), {tp: before}, {tp: after}, member)


def end(producer):
    """End a raw producer whatever state it is in."""
    producer._sender.force_close()
    producer._sender.join(10)
    assert not producer._sender.is_alive()
    producer.close(timeout=0)


@pytest.fixture(scope="module", autouse=True)
def _sockets():
    """Collect the sockets that clients whose connections were cut forget: not in later modules."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def proxy(kafka):
    with FaultProxy(kafka.bootstrap_servers) as started:
        yield started


class Direct(NamedTuple):
    """The broker without the proxy, so that no fault reaches these clients."""

    address: str
    admin: KafkaAdminClient
    watermarks: KafkaConsumer


@pytest.fixture(scope="session")
def direct(kafka):
    address = kafka.bootstrap_servers
    watermarks = KafkaConsumer(bootstrap_servers=address)
    with KafkaAdminClient(bootstrap_servers=address) as admin:
        yield Direct(address, admin, watermarks)
    watermarks.close()


@pytest.fixture
def pipe(direct, proxy, topic_names):
    made = Pipe(direct, proxy, topic_names())
    yield made
    made.close()
