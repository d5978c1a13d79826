"""Changelog and offsets that disagree: the worker halts, and both ways out work, on real Kafka."""

from contextlib import closing

import pytest
from kafka import TopicPartition

from stream import clients, topics
from stream.changelog import MARKER_KEY, decode
from stream.positions import as_commit

pytestmark = [pytest.mark.kafka, pytest.mark.faults]
STATE_MISMATCH, CRASHED = 71, 137
USERS = 12
QUICK = {"session_timeout_ms": 2000, "heartbeat_interval_ms": 500}
BOTH = pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])


@pytest.fixture
def make_served(kafka, make_system, publish_bundle, serve):
    """Make a system that has answered 120 clicks of 12 users, and is stopped."""

    def make(guarantee):
        system = make_system(kafka, kafka=QUICK, processing={"guarantee": guarantee, "slot": "a"})
        system.announce(publish_bundle())
        serve(system, 120)
        return system

    return make


@pytest.fixture
def serve(wait_until):
    """Have a worker answer `count` more clicks and stop it."""
    sent = {}

    def run(system, count, *, answered=None, **own):
        system.settings = system.settings.model_copy(
            update={"worker": system.settings.worker.model_copy(update=own)}
        )
        before = sent.get(id(system), 0)
        sent[id(system)] = before + count
        for n in range(before, before + count):
            system.click(f"u{n % USERS}", f"i{n % 200}", event_id=f"e{n}")
        system.flush()
        running = system.start_worker()
        until = answered or before + count
        wait_until(lambda: running.ended or total(system) == until, 40, "every click is answered")
        running.stop()

    return run


@pytest.fixture
def halted(start_process):
    """Start a worker process, which must end with 71; returns what it said."""

    def run(system):
        process = start_process(system, slot="a")
        assert process.wait(60) == STATE_MISMATCH
        return process.text

    return run


def with_policy(settings, policy):
    worker = settings.worker.model_copy(update={"on_mismatch": policy})
    return settings.model_copy(update={"worker": worker})


def total(system):
    return sum(offset or 0 for offset in system.committed().values())


def partitions(system, topic):
    return [TopicPartition(getattr(system.settings.topics, topic), n) for n in range(2)]


def delete_changelog(system):
    name = system.settings.topics.sessions
    with closing(clients.admin(system.settings.kafka)) as admin:
        admin.delete_topics([name], timeout_ms=10_000)
    topics.ensure(system.settings.kafka, system.settings.topics)


def cut_changelog(system, share):
    """Delete the first `share` of the records of each partition, as a wrong policy would."""
    name = system.settings.topics.sessions
    with closing(clients.reader(system.settings.kafka, client_id="test")) as reader:
        ends = {
            tp: reader.end_offsets([tp], timeout_ms=10_000)[tp]
            for tp in partitions(system, "sessions")
        }
    set_policy(system, name, "delete")
    with closing(clients.admin(system.settings.kafka)) as admin:
        cut = {tp: int(share * end) for tp, end in ends.items()}
        admin.delete_records(cut, timeout_ms=10_000)
    set_policy(system, name, "compact")


def set_policy(system, name, policy):
    from kafka.admin import ConfigResource, ConfigResourceType

    with closing(clients.admin(system.settings.kafka)) as admin:
        configs = {"cleanup.policy": policy}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs)])


def put_in(system, records):
    """Write records into the changelog again, as a backup tool does."""
    for record in records:
        system.producer.send(
            system.settings.topics.sessions,
            partition=record.partition,
            key=record.key,
            value=record.value,
            headers=record.headers,
        )
    system.flush()


def move_offsets(system, by):
    """Move the group's offset of each partition, as an operator does."""
    moved = {
        tp: max(0, system.committed()[tp.partition] + by) for tp in partitions(system, "clicks")
    }
    group = clients.click_consumer(
        system.settings.kafka, system.settings.processing, client_id="operator"
    )
    with closing(group):
        group.assign(list(moved))
        group.commit(as_commit(moved), timeout_ms=10_000)


def last_markers(system):
    records = system.records("sessions")
    return {r.partition: decode(r) for r in records if r.key == MARKER_KEY}


def delete(system):
    delete_changelog(system)


def cut_all(system):
    cut_changelog(system, 1.0)


def cut_half(system):
    cut_changelog(system, 0.5)


@pytest.mark.matrix("F30")
@BOTH
@pytest.mark.parametrize("damage", [delete, cut_all, cut_half])
def test_sessions_of_a_damaged_changelog_are_rebuilt(make_served, serve, halted, guarantee, damage):
    system = make_served(guarantee)
    damage(system)

    said = halted(system)
    serve(system, 60, on_mismatch="rebuild")
    serve(system, 60, on_mismatch="halt")

    assert "--rebuild-from-events" in said
    assert {m.rebuilds for m in last_markers(system).values()} == {1}
    report = system.verify(exactly_once=False)
    assert report.violations == []
    assert (report.clicks, report.sessions, report.states) == (240, 12, 12)
    assert report.guarantees == {guarantee: 2}


@pytest.mark.matrix("F30")
@BOTH
def test_sessions_of_an_older_backup_are_rebuilt(make_served, serve, halted, guarantee):
    system = make_served(guarantee)
    backup = system.records("sessions")
    serve(system, 60)
    delete_changelog(system)
    put_in(system, backup)

    said = halted(system)
    serve(system, 60, on_mismatch="rebuild")

    assert "--rebuild-from-events" in said
    report = system.verify(exactly_once=False)
    assert report.violations == []
    assert (report.clicks, report.sessions, report.states) == (240, 12, 12)


@pytest.mark.matrix("F30", "F2")
@pytest.mark.parametrize(("guarantee", "flush"), [("at_least_once", 1), ("exactly_once", 2)])
def test_a_worker_that_is_killed_while_it_rebuilds_starts_the_rebuild_over(
    make_served, serve, halted, start_process, guarantee, flush
):
    system = make_served(guarantee)
    for n in range(1300):
        system.click(f"v{n}", "i1")
    system.flush()
    serve(system, 0, answered=1420)
    delete_changelog(system)

    system.settings = with_policy(system.settings, "rebuild")
    killed = start_process(system, slot="a", fail_point=f"after_flush:{flush}")
    assert killed.wait(60) == CRASHED
    system.settings = with_policy(system.settings, "halt")
    said = halted(system)
    serve(system, 60, answered=1480, on_mismatch="rebuild")

    assert "was not finished" in said
    report = system.verify(exactly_once=False)
    assert report.violations == []
    assert report.sessions == report.states == 1312


@pytest.mark.matrix("F32")
def test_offsets_that_were_set_back_halt_a_transactional_worker_until_accepted(
    make_served, serve, halted
):
    system = make_served("exactly_once")
    move_offsets(system, -20)

    said = halted(system)
    serve(system, 30, on_mismatch="accept")
    serve(system, 30, on_mismatch="halt")

    assert "its sessions reach up to" in said
    report = system.verify(exactly_once=False)
    assert (report.violations, report.repeated, report.clicks) == ([], 40, 180)
    assert report.guarantees == {"exactly_once": 2}


@pytest.mark.matrix("F32")
def test_offsets_that_were_set_back_are_answered_again_at_least_once(make_served, serve, halted):
    system = make_served("at_least_once")
    move_offsets(system, -20)

    serve(system, 30)

    report = system.verify()
    assert (report.violations, report.repeated, report.clicks) == ([], 40, 150)


@pytest.mark.matrix("F32")
@BOTH
def test_offsets_that_were_set_forward_halt_the_worker_and_accepting_loses_the_clicks_between(
    make_served, serve, halted, guarantee
):
    system = make_served(guarantee)
    for n in range(40):
        system.click(f"u{n % 12}", f"i{n}")
    system.flush()
    ends = {tp.partition: 0 for tp in partitions(system, "clicks")}
    with closing(clients.reader(system.settings.kafka, client_id="test")) as reader:
        for tp in partitions(system, "clicks"):
            ends[tp.partition] = reader.end_offsets([tp], timeout_ms=10_000)[tp]
    skipped = {p: end - system.committed()[p] for p, end in ends.items()}
    move_offsets(system, min(skipped.values()))

    said = halted(system)
    serve(system, 20, answered=180, on_mismatch="accept")

    assert "--rebuild-from-events" in said
    lost = 2 * min(skipped.values())
    report = system.verify(exactly_once=False)
    assert report.lost == len(report.violations) == lost
    assert sum(m.lost for m in last_markers(system).values()) == lost
    assert report.guarantees == {guarantee: 2}


@pytest.mark.matrix("F32")
def test_deleted_offsets_halt_the_worker_and_a_rebuild_answers_everything_again(
    make_served, serve, halted
):
    system = make_served("exactly_once")
    with closing(clients.admin(system.settings.kafka)) as admin:
        admin.delete_groups([system.settings.kafka.app])

    said = halted(system)
    serve(system, 30, on_mismatch="rebuild")

    assert "no committed offset" in said
    report = system.verify(exactly_once=False)
    # The group's generations begin anew too, so which copy a session went on from is not decidable.
    assert (report.repeated, report.clicks, report.lost) == (120, 150, 0)
