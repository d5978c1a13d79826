"""Local Kafka: real brokers, their data, their faults, and nothing left behind."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kafka import TopicPartition
from kafka.admin import NewTopic

from stream import clients, local_kafka
from stream.kafka_node import free_ports
from stream.kafka_runtime import KafkaRuntime
from stream.local_kafka import KafkaDirectoryError, KafkaStartError, LocalKafka, wipe
from stream.settings import KafkaSettings

WaitUntil = Callable[..., None]


def settings_of(kafka: LocalKafka) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)


def create_topic(kafka: LocalKafka, topic: str) -> None:
    admin = clients.admin(settings_of(kafka))
    try:
        admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=-1)])
    finally:
        admin.close()


def produce(kafka: LocalKafka, topic: str, value: bytes) -> None:
    producer = clients.producer(settings_of(kafka), client_id="test")
    try:
        assert producer.send(topic, value) is not None
        producer.flush(timeout=10)
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
        while len(read) < end and time.monotonic() < deadline:
            polled = consumer.poll(timeout_ms=200)
            read.extend(record.value for records in polled.values() for record in records)
        return read
    finally:
        consumer.close()


def visible(kafka: LocalKafka) -> set[int]:
    admin = clients.admin(settings_of(kafka))
    try:
        return {broker["broker_id"] for broker in admin.describe_cluster()["brokers"]}
    finally:
        admin.close()


def state_of(pid: int) -> str | None:
    """Return the kernel's letter for a process (T is stopped), None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return stat.rpartition(")")[2].split()[0]


def exists(pid: int) -> bool:
    return state_of(pid) not in (None, "Z")


def failing_runtime(folder: Path, message: str = "no") -> KafkaRuntime:
    """Make a runtime whose Java only prints a message and fails."""
    java = folder.parent / f"{folder.name}-java"
    java.write_text(f"#!/bin/sh\necho {message}; exit 1\n")
    java.chmod(0o755)
    return KafkaRuntime(java, (), folder.parent / f"{folder.name}-cache", supports_aot=False)


@pytest.mark.kafka
def test_a_click_that_was_produced_is_consumed(
    kafka: LocalKafka, topic_names: Callable[[], str]
) -> None:
    topic = topic_names() + "clicks"
    create_topic(kafka, topic)

    produce(kafka, topic, b"a click")

    assert values(kafka, topic) == [b"a click"]


@pytest.mark.kafka
def test_topics_and_records_survive_a_restart_of_the_same_directory(
    kafka_runtime: KafkaRuntime, tmp_path: Path
) -> None:
    kafka = LocalKafka(tmp_path / "data", runtime=kafka_runtime)
    with kafka:
        create_topic(kafka, "clicks")
        produce(kafka, "clicks", b"kept")

    with kafka:
        assert values(kafka, "clicks") == [b"kept"]


@pytest.mark.kafka
def test_stop_leaves_no_process(kafka_runtime: KafkaRuntime, tmp_path: Path) -> None:
    kafka = LocalKafka(tmp_path / "data", runtime=kafka_runtime)
    kafka.start()
    pids = list(kafka.pids.values())

    kafka.stop()

    assert len(pids) == 1
    assert not any(exists(pid) for pid in pids)
    assert kafka.pids == {}


@pytest.mark.kafka
def test_a_broker_ends_with_its_parent_even_if_that_is_killed(
    kafka_runtime: KafkaRuntime, tmp_path: Path, wait_until: WaitUntil
) -> None:
    program = (
        "import pathlib, sys; from stream.local_kafka import LocalKafka\n"
        "kafka = LocalKafka(pathlib.Path(sys.argv[1])); kafka.start()\n"
        "print(kafka.pids[1], flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "data")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert exists(pid)

        parent.kill()

    wait_until(lambda: not exists(pid), 10, "the broker outlived its parent")


@pytest.mark.kafka
def test_a_paused_broker_still_stops(
    kafka_runtime: KafkaRuntime, tmp_path: Path, wait_until: WaitUntil
) -> None:
    with LocalKafka(tmp_path / "data", runtime=kafka_runtime) as kafka:
        pid = kafka.pids[1]
        kafka.pause(1)
        wait_until(lambda: state_of(pid) == "T", 5, "the broker was not paused")
        kafka.resume(1)
        wait_until(lambda: state_of(pid) == "S", 5, "the broker was not resumed")
        kafka.pause(1)

    assert not exists(pid)


@pytest.mark.kafka
def test_three_brokers_are_all_visible_and_survive_a_crash_of_one(
    kafka_runtime: KafkaRuntime, tmp_path: Path
) -> None:
    with LocalKafka(tmp_path / "data", brokers=3, runtime=kafka_runtime) as kafka:
        servers = kafka.bootstrap_servers
        assert visible(kafka) == {2, 3, 4}
        create_topic(kafka, "clicks")

        kafka.kill(3)
        assert set(kafka.pids) == {1, 2, 4}
        produce(kafka, "clicks", b"two of three are in sync")
        kafka.restart(3)

        assert visible(kafka) == {2, 3, 4}
        assert kafka.bootstrap_servers == servers
        assert values(kafka, "clicks") == [b"two of three are in sync"]


@pytest.mark.kafka
def test_a_port_that_was_taken_meanwhile_is_replaced(
    kafka_runtime: KafkaRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        taken_port = taken.getsockname()[1]
        choices = [[*free_ports(1), taken_port], free_ports(2)]
        monkeypatch.setattr(local_kafka, "free_ports", lambda _: choices.pop(0))

        with LocalKafka(tmp_path / "data", runtime=kafka_runtime) as kafka:
            assert kafka.bootstrap_servers != f"127.0.0.1:{taken_port}"


def test_a_directory_with_other_files_is_neither_used_nor_wiped(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")

    with pytest.raises(KafkaDirectoryError, match="not empty"):
        LocalKafka(tmp_path, runtime=failing_runtime(tmp_path)).start()
    with pytest.raises(KafkaDirectoryError, match="left as it is"):
        wipe(tmp_path)

    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_start_that_fails_shows_what_the_node_printed(tmp_path: Path) -> None:
    kafka = LocalKafka(
        tmp_path / "data", fast_start=False, runtime=failing_runtime(tmp_path, "no such heap")
    )

    with pytest.raises(KafkaStartError, match="no such heap"):
        kafka.start()

    assert kafka.pids == {}


def test_the_data_of_one_broker_are_not_mixed_with_those_of_three(tmp_path: Path) -> None:
    runtime = failing_runtime(tmp_path)
    with pytest.raises(KafkaStartError):
        LocalKafka(tmp_path / "data", fast_start=False, runtime=runtime).start()

    with pytest.raises(KafkaDirectoryError, match="holds the data of 1 broker"):
        LocalKafka(tmp_path / "data", brokers=3, fast_start=False, runtime=runtime).start()


def test_wiping_removes_what_is_ours_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(KafkaStartError):
        LocalKafka(tmp_path / "data", fast_start=False, runtime=failing_runtime(tmp_path)).start()

    assert wipe(tmp_path / "data")
    assert not (tmp_path / "data").exists()
    assert not wipe(tmp_path / "data")
