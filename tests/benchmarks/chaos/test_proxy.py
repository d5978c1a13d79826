"""The fault proxy in front of real Kafka: unchanged without faults, and each fault as it says."""

import socket
import time
from random import Random

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import CorruptRecordError, KafkaError, MessageSizeTooLargeError

from benchmarks.chaos import network_faults as faults
from benchmarks.chaos.proxy import FaultProxy, deliver
from benchmarks.chaos.wire import error_codes
from stream.local_kafka import LocalKafka

pytestmark = [pytest.mark.kafka, pytest.mark.faults]


@pytest.fixture
def proxy(kafka):
    with FaultProxy(kafka.bootstrap_servers) as started:
        yield started


@pytest.fixture
def topic(kafka, topic_names):
    name = topic_names() + "topic"
    with KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers) as admin:
        admin.create_topics({name: {"num_partitions": 2, "replication_factor": 1}})
        admin.wait_for_topics([name])
    return name


@pytest.fixture
def producer(proxy):
    made = KafkaProducer(
        bootstrap_servers=proxy.bootstrap_servers,
        client_id="victim",
        request_timeout_ms=1000,
        delivery_timeout_ms=4000,
        retry_backoff_ms=20,
    )
    yield made
    made._sender.force_close()
    made._sender.join(5)
    made.close(timeout=0)


def values(address, topic, partition=0, **options):
    """Everything in a partition."""
    reader = KafkaConsumer(bootstrap_servers=address, enable_auto_commit=False, **options)
    try:
        tp = TopicPartition(topic, partition)
        reader.assign([tp])
        reader.seek_to_beginning(tp)
        end = reader.end_offsets([tp], timeout_ms=5000)[tp]
        found, deadline = [], time.monotonic() + 10
        while reader.position(tp, timeout_ms=5000) < end and time.monotonic() < deadline:
            found += [r.value for batch in reader.poll(timeout_ms=100).values() for r in batch]
        return found
    finally:
        reader.close()


def test_without_faults_everything_passes_unchanged(kafka, proxy, topic, producer):
    sent = [b"%d" % n * 1000 for n in range(500)]

    for value in sent:
        producer.send(topic, value, partition=0)
    producer.flush(timeout=10)

    assert values(proxy.bootstrap_servers, topic) == sent
    assert values(kafka.bootstrap_servers, topic) == sent
    assert proxy.passed["Produce"] > 0
    assert proxy.passed["Fetch"] > 0


def test_clients_stay_behind_the_proxy(kafka, proxy, topic):
    with KafkaAdminClient(bootstrap_servers=proxy.bootstrap_servers) as admin:
        brokers = admin.describe_cluster()["brokers"]
    member = KafkaConsumer(bootstrap_servers=proxy.bootstrap_servers, group_id=topic + "group")
    try:
        committed = member.committed(TopicPartition(topic, 0), timeout_ms=20_000)
    finally:
        member.close()

    addresses = ",".join(f"{broker['host']}:{broker['port']}" for broker in brokers)
    assert addresses == proxy.bootstrap_servers
    assert addresses != kafka.bootstrap_servers
    assert committed is None
    assert proxy.passed["OffsetFetch"] > 0


def test_each_of_three_brokers_is_behind_the_proxy(kafka_runtime, tmp_path):
    with (
        LocalKafka(tmp_path / "data", brokers=3, runtime=kafka_runtime) as cluster,
        FaultProxy(cluster.bootstrap_servers) as proxy,
    ):
        with KafkaAdminClient(bootstrap_servers=proxy.bootstrap_servers) as admin:
            brokers = admin.describe_cluster()["brokers"]
            admin.create_topics({"t": {"num_partitions": 3, "replication_factor": 3}})
            admin.wait_for_topics(["t"])
        producer = KafkaProducer(bootstrap_servers=proxy.bootstrap_servers)
        for partition in range(3):
            producer.send("t", b"%d" % partition, partition=partition).get(timeout=20)
        producer.close(timeout=5)

        ports = {broker["port"] for broker in brokers}
        assert ports == set(proxy.ports.values())
        assert len(ports) == 3
        assert proxy.passed["Produce"] == 3
        for partition in range(3):
            assert values(cluster.bootstrap_servers, "t", partition) == [b"%d" % partition]


def test_a_closed_request_does_not_reach_the_broker(kafka, proxy, topic, producer):
    producer.partitions_for(topic)
    with proxy.plant(faults.close("Produce")) as fault:
        future = producer.send(topic, b"lost", partition=0)
        with pytest.raises(KafkaError):
            future.get(timeout=10)

    assert fault.hits > 1
    assert values(kafka.bootstrap_servers, topic) == []


def test_a_closed_reply_leaves_the_request_done(proxy, kafka, topic, producer):
    fault = proxy.plant(faults.close("Produce", on="reply", times=1))

    producer.send(topic, b"once", partition=0).get(timeout=10)

    assert fault.hits == 1
    assert proxy.passed["Produce"] == 2
    assert values(kafka.bootstrap_servers, topic) == [b"once"]


def test_a_reply_cut_in_the_middle_is_survived(proxy, kafka, topic, producer):
    fault = proxy.plant(faults.cut("Produce", on="reply", times=1))

    producer.send(topic, b"once", partition=0).get(timeout=10)

    assert fault.hits == 1
    assert values(kafka.bootstrap_servers, topic) == [b"once"]


def test_a_silent_connection_is_left_after_the_request_timeout(proxy, kafka, topic, producer):
    producer.partitions_for(topic)
    fault = proxy.plant(faults.silence("Produce", times=1))
    began = time.monotonic()

    producer.send(topic, b"once", partition=0).get(timeout=10)

    assert fault.hits == 1
    assert time.monotonic() - began > 0.9
    assert values(kafka.bootstrap_servers, topic) == [b"once"]


def test_a_stalled_reply_arrives_when_the_fault_is_lifted(proxy, topic, producer, wait_until):
    fault = proxy.plant(faults.stall("Produce", on="reply"))
    future = producer.send(topic, b"late", partition=0)
    wait_until(lambda: fault.hits, 5, "the reply is kept")
    assert not future.is_done

    fault.lift()

    assert future.get(timeout=5).offset == 0
    assert proxy.passed["Produce"] == 1


def test_a_delay_is_within_its_bounds(proxy, topic, producer):
    producer.send(topic, b"first", partition=0).get(timeout=5)
    proxy.plant(faults.delay("Produce", seconds=(0.3, 0.4), rng=Random(1), on="reply"))
    began = time.monotonic()

    producer.send(topic, b"slow", partition=0).get(timeout=5)

    assert time.monotonic() - began > 0.3


def test_a_fault_can_be_limited_to_one_client(proxy, topic, producer):
    fault = proxy.plant(faults.close("Produce", client="somebody-else"))

    producer.send(topic, b"fine", partition=0).get(timeout=5)

    assert fault.hits == 0


def test_error_codes_replace_those_of_the_broker(proxy, kafka, topic, producer):
    proxy.plant(faults.error("Produce", code=10, times=1))  # too large

    with pytest.raises(MessageSizeTooLargeError):
        producer.send(topic, b"refused", partition=0).get(timeout=5)

    assert values(kafka.bootstrap_servers, topic) == [b"refused"]


def test_an_error_can_be_limited_to_one_topic(proxy, topic, producer):
    fault = proxy.plant(faults.error("Produce", code=10, topic="another"))

    assert producer.send(topic, b"fine", partition=0).get(timeout=5).offset == 0
    assert fault.hits == 1


def test_a_held_request_can_be_delivered_later(proxy, kafka, topic, producer):
    fault = proxy.plant(faults.hold("Produce", times=1))
    producer.send(topic, b"once", partition=0).get(timeout=10)

    reply = deliver(fault.held[0])

    assert reply.responses[0].partition_responses[0].error_code == 0  # known as a duplicate
    assert values(kafka.bootstrap_servers, topic) == [b"once"]


def test_a_copied_request_passes_too(proxy, kafka, topic, producer):
    fault = proxy.plant(faults.copy("Produce", times=1))
    producer.send(topic, b"once", partition=0).get(timeout=10)

    deliver(fault.held[0])

    assert proxy.passed["Produce"] == 1
    assert values(kafka.bootstrap_servers, topic) == [b"once"]


def test_a_flipped_byte_breaks_the_checksum(proxy, topic, producer):
    producer.send(topic, b"whole" * 10, partition=0).get(timeout=5)
    fault = proxy.plant(faults.flip_byte(Random(1), times=1, client="reader"))
    reader = KafkaConsumer(
        bootstrap_servers=proxy.bootstrap_servers, client_id="reader", enable_auto_commit=False
    )
    reader.assign([TopicPartition(topic, 0)])
    reader.seek_to_beginning()

    try:
        with pytest.raises(CorruptRecordError):
            reader.poll(timeout_ms=10_000)
    finally:
        reader.close()
    assert fault.hits == 1


def test_bandwidth_is_limited(proxy, topic, producer):
    producer.send(topic, b"first", partition=0).get(timeout=5)
    proxy.bytes_per_second = 100_000
    began = time.monotonic()

    producer.send(topic, bytes(50_000), partition=0).get(timeout=5)

    assert time.monotonic() - began > 0.4


def test_a_broker_that_is_away_is_away_behind_the_proxy():
    with (
        FaultProxy("127.0.0.1:1") as proxy,
        socket.create_connection(("127.0.0.1", proxy.ports[1]), 5) as connection,
    ):
        assert connection.recv(1) == b""


def test_closing_ends_silent_connections_too(kafka, topic, wait_until):
    with FaultProxy(kafka.bootstrap_servers) as proxy:
        producer = KafkaProducer(bootstrap_servers=proxy.bootstrap_servers)
        producer.partitions_for(topic)
        fault = proxy.plant(faults.silence())
        producer.send(topic, b"nowhere", partition=0)
        wait_until(lambda: fault.hits, 5, "the connection is silent")
        began = time.monotonic()

    assert time.monotonic() - began < 5
    producer._sender.force_close()
    producer._sender.join(5)
    producer.close(timeout=0)


def test_error_codes_of_a_reply_can_be_read(proxy, topic, producer):
    fault = proxy.plant(faults.copy("Produce", on="reply", times=1))
    producer.send(topic, b"fine", partition=0).get(timeout=5)

    seen = fault.held[0]

    assert error_codes(seen.request, seen.payload) == [0]
