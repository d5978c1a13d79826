"""Restores from changelogs that are hard to read, and starts without a valid offset."""

import signal
from contextlib import closing
from functools import partial

import msgspec
import pytest
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

import worker.restore
from stream import clients
from stream.changelog import MARKER_KEY, decode, encode_marker, read_to_end
from stream.positions import as_commit

pytestmark = [pytest.mark.kafka, pytest.mark.faults]
BOTH = pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
QUICK = {"session_timeout_ms": 2000, "heartbeat_interval_ms": 500}
STATE_MISMATCH = 71
TRANSACTION_TIMEOUT_MS = 12_000


@pytest.fixture
def make_served(kafka, make_system, publish_bundle, serve):
    """Make a system that has answered 60 clicks of 6 users, and is stopped."""

    def make(guarantee, *, count=60, **sections):
        processing = {"guarantee": guarantee, "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS}
        system = make_system(kafka, kafka=QUICK, processing=processing, **sections)
        system.announce(publish_bundle())
        if count:
            serve(system, count)
        return system

    return make


@pytest.fixture
def serve(wait_until):
    """Have a worker answer `count` more clicks of so many users, and stop it."""

    def run(system, count, *, users=6):
        until = committed(system) + count
        for n in range(count):
            system.click(f"u{n % users}", f"i{n % 200}")
        system.flush()
        running = system.start_worker()
        wait_until(lambda: committed(system) == until, 60, "every click is answered")
        running.stop()

    return run


def committed(system):
    return sum(offset or 0 for offset in system.committed().values())


def part(system, topic, number):
    return TopicPartition(getattr(system.settings.topics, topic), number)


@pytest.fixture
def transaction(request):
    """Begin a transaction of a stranger; what is sent in it is acknowledged before it ends."""

    def begin(system, name="stranger"):
        producer = clients.transactional_producer(
            system.settings.kafka, system.settings.processing, client_id=name, slot=name
        )
        request.addfinalizer(partial(producer.close, timeout=5))
        producer.init_transactions()
        producer.begin_transaction()
        return producer

    return begin


def send(producer, tp, key, value):
    producer.send(tp.topic, partition=tp.partition, key=key, value=value).get(timeout=10)


def last_marker(system, number):
    records = [r for r in system.records("sessions") if r.partition == number]
    return [decode(r) for r in records if r.key == MARKER_KEY][-1]


@pytest.mark.matrix("F27")
@BOTH
def test_an_aborted_tail_of_the_changelog_is_passed_over(
    make_served, serve, transaction, guarantee
):
    system = make_served(guarantee)
    producer = transaction(system)
    for number in range(2):
        ahead = msgspec.structs.replace(last_marker(system, number), next_offset=10_000)
        send(producer, part(system, "sessions", number), b"u1", b"no session")
        send(producer, part(system, "sessions", number), MARKER_KEY, encode_marker(ahead))
    producer.abort_transaction()

    serve(system, 30)

    report = system.verify()
    assert report.violations == []
    assert (report.clicks, report.repeated, report.sessions) == (90, 0, 6)


@pytest.mark.matrix("F27")
def test_a_restore_waits_for_a_transaction_whose_offsets_are_visible_before_its_marker(
    make_served, transaction, wait_until, monkeypatch
):
    system = make_served("exactly_once")
    system.click("u1", "i1", type="of the future")
    system.flush()
    records = {r.partition: r for r in system.records("clicks") if b"of the future" in r.value}
    ((number, click),) = records.items()
    marker = last_marker(system, number)
    moved = msgspec.structs.replace(
        marker, next_offset=click.offset + 1, seen=marker.seen + 1, skipped={"unsupported": 1}
    )
    producer = transaction(system)
    send(producer, part(system, "sessions", number), MARKER_KEY, encode_marker(moved))
    commit_as_operator(system, part(system, "clicks", number), click.offset + 1)
    asked = count_slices(monkeypatch)

    running = system.start_worker()
    wait_until(lambda: len(asked) > 20 or running.ended, 30, "the restore waits")
    waiting = "sessions" in running.health.missing and not running.ended
    producer.commit_transaction()
    wait_until(lambda: "sessions" not in running.health.missing, 30, "it goes on")
    running.stop()

    assert waiting
    report = system.verify()
    assert report.violations == []
    assert report.skipped == {"unsupported": 1}


def commit_as_operator(system, tp, offset):
    group = clients.click_consumer(
        system.settings.kafka, system.settings.processing, client_id="operator"
    )
    with closing(group):
        group.assign([tp])
        group.commit(as_commit({tp: offset}), timeout_ms=10_000)


def count_slices(monkeypatch):
    """Return a list that grows by one at each slice that a restore reads."""
    asked = []

    def counting(reader, ends, *, between_slices):
        def noted():
            asked.append(None)
            return between_slices()

        return read_to_end(reader, ends, between_slices=noted)

    monkeypatch.setattr(worker.restore, "read_to_end", counting)
    return asked


@pytest.mark.matrix("F27", "F26")
@pytest.mark.parametrize("point", ["after_flush", "after_offsets"])
def test_a_restore_in_another_slot_waits_until_brokers_end_the_dead_workers_transaction(
    make_served, start_process, serve, wait_until, point
):
    system = make_served("exactly_once")
    for n in range(40):
        system.click(f"u{n % 6}", f"i{n}")
    system.flush()

    dead = start_process(system, slot="dead", fail_point=f"{point}:1")
    assert dead.wait(60) == 137
    running = system.start_worker()
    wait_until(lambda: running.value("clicks_total") == 40, 60, "another slot answers")
    running.stop()

    report = system.verify()
    assert report.violations == []
    assert (report.clicks, report.repeated, report.open_transactions) == (100, 0, {})


@pytest.mark.matrix("F28")
@BOTH
def test_sessions_come_back_from_a_compacted_changelog_with_tombstones(
    make_served, serve, wait_until, guarantee
):
    system = make_served(guarantee, count=0, worker={"sessions": {"max_live": 1000}})
    compact_quickly(system)
    serve(system, 1500, users=1300)
    serve(system, 300, users=100)

    def compacted():
        # A segment rolls only when something is appended to it.
        for number in range(2):
            send(system.producer, part(system, "sessions", number), b"nobody", None)
        records = system.records("sessions")
        return len(records) < 1.1 * len({(r.partition, r.key) for r in records})

    wait_until(compacted, 60, "the changelog is compacted")
    serve(system, 300, users=200)

    tombstones = [r for r in system.records("sessions") if r.value is None and r.key != b"nobody"]
    report = system.verify()
    assert report.violations == []
    assert (report.clicks, report.repeated) == (2100, 0)
    assert report.sessions == report.states <= 1000
    assert tombstones


def compact_quickly(system):
    quickly = {
        "segment.ms": "1000",
        "min.cleanable.dirty.ratio": "0.01",
        "max.compaction.lag.ms": "2000",
    }
    resource = ConfigResource(ConfigResourceType.TOPIC, system.settings.topics.sessions, quickly)
    with closing(clients.admin(system.settings.kafka)) as admin:
        admin.alter_configs([resource])


@pytest.mark.matrix("F52")
@BOTH
@pytest.mark.parametrize(("start_from", "answered"), [("earliest", 70), ("latest", 30)])
def test_a_first_start_begins_where_its_policy_says(
    make_served, wait_until, guarantee, start_from, answered
):
    system = make_served(guarantee, count=0, worker={"start_from": start_from})
    click(system, 40)
    running = system.start_worker()
    wait_until(lambda: "sessions" not in running.health.missing, 40, "it serves")
    click(system, 30)
    wait_until(lambda: running.value("clicks_total") == answered, 40, "it answers")
    running.stop()

    report = system.verify()
    assert report.violations == []
    assert (report.clicks, report.before_start) == (answered, 70 - answered)
    assert len(system.recommendations()) == answered


def click(system, count):
    for n in range(count):
        system.click(f"u{n % 6}", f"i{n}")
    system.flush()


@pytest.mark.matrix("F52", "F31")
@BOTH
@pytest.mark.parametrize("on_gap", ["continue", "halt"])
def test_clicks_that_are_deleted_under_a_running_worker_are_never_passed_over_in_silence(
    make_served, start_process, wait_until, guarantee, on_gap
):
    system = make_served(guarantee, worker={"on_gap": on_gap})
    worker = start_process(system, slot="a")
    wait_until(lambda: "sessions restored" in worker.text, 60, "it serves")
    worker.signal(signal.SIGSTOP)
    first = system.committed()
    click(system, 6)  # may still reach it: they answer the fetch that was waiting
    click(system, 40)
    ends = {n: first[n] + share for n, share in shares(system, 46).items()}
    with closing(clients.admin(system.settings.kafka)) as admin:
        admin.delete_records({part(system, "clicks", n): end for n, end in ends.items()})
    worker.signal(signal.SIGCONT)

    if on_gap == "halt":
        assert worker.wait(60) == STATE_MISMATCH
        assert "were deleted before they were answered" in worker.text
        return
    wait_until(lambda: "clicks lost" in worker.text, 40, "it notices")
    click(system, 20)
    wait_until(lambda: committed(system) == 126, 40, "it goes on")
    lost = sum(last_marker(system, n).lost for n in range(2))
    assert 40 <= lost <= 46
    assert sum(last_marker(system, n).seen for n in range(2)) == 126 - lost


def shares(system, count):
    """How many of the last `count` clicks went to each partition."""
    last = sorted(system.records("clicks"), key=lambda r: r.timestamp)
    numbers = [r.partition for r in last]
    return {n: numbers.count(n) - (system.committed()[n] or 0) for n in range(2)}
