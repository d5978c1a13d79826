"""D12 and D16: members that are none any more, or never become one, without being told."""

import threading
from random import Random

import pytest
from kafka import KafkaConsumer
from kafka.errors import FencedInstanceIdError

from benchmarks.chaos import network_faults as faults
from stream.assignment import Lease, membership
from stream.batch import Outcome
from stream.exactly_once import FencedError
from stream.rejoin import finish_rejoin
from stream.settings import ProcessingSettings

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # cut connections
]

STATIC = ProcessingSettings(slot="a", static_members=True)
SESSION = {"session_timeout_ms": 2000, "heartbeat_interval_ms": 300}


def polled_until(consumer, condition, seconds):
    """Poll shortly, as the worker does, until a condition holds; returns whether it did."""
    over = threading.Event()
    timer = threading.Timer(seconds, over.set)
    timer.start()
    try:
        while not over.is_set():
            consumer.poll(timeout_ms=50)
            if condition():
                return True
        return False
    finally:
        timer.cancel()


# D12: a static member that lost its place to another process is not told.


@pytest.mark.matrix("D12", "F6")
@pytest.mark.xfail(strict=True, raises=pytest.fail.Exception, reason="D12: poll() never raises")
def test_defect_d12_a_fenced_static_member_is_told_by_poll(pipe):
    first = pipe.member(STATIC, **SESSION)
    pipe.member(STATIC, **SESSION)

    with pytest.raises(FencedInstanceIdError):
        polled_until(first, lambda: False, 3)


@pytest.mark.matrix("D12", "F6")
def test_guard_d12_the_lease_of_a_fenced_static_member_runs_out(pipe):
    first = pipe.member(STATIC, **SESSION)
    lease = Lease(first)
    assert lease.held

    pipe.member(STATIC, **SESSION)

    assert polled_until(first, lambda: lease.fenced, 4)
    assert not lease.held


@pytest.mark.matrix("D12", "F6")
def test_guard_d12_a_fenced_static_member_commits_nothing(pipe):
    first = pipe.member(STATIC, **SESSION)
    polled_under = membership(first)
    committers = {"at_least_once": pipe.at_least_once(first), "exactly_once": None}
    committers["exactly_once"] = pipe.exactly_once(first)
    pipe.member(STATIC, **SESSION)

    with pytest.raises(FencedInstanceIdError):
        pipe.batch(committers["at_least_once"], polled_under, [b"zombie"], after=42)
    with pytest.raises(FencedError):
        pipe.batch(committers["exactly_once"], polled_under, [b"zombie"], after=42)
    assert pipe.committed() == 0


@pytest.mark.matrix("D12", "F4")
def test_guard_d12_at_least_once_sends_nothing_without_a_lease(pipe):
    consumer = pipe.member(**SESSION)
    committer, member, lease = pipe.at_least_once(consumer), membership(consumer), Lease(consumer)
    stalled = pipe.proxy.plant(faults.stall("Heartbeat", client="member", times=1))

    assert polled_until(consumer, lambda: not lease.held, 4)
    threading.Timer(0.5, stalled.lift).start()  # the question what is committed comes behind it
    outcome = pipe.batch(committer, member, [b"zombie"], after=42)

    assert outcome is Outcome.ROLLED_BACK
    assert pipe.records() == []


@pytest.mark.matrix("D12", "F4")
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="finding a coordinator extends it")
def test_guard_d12_a_lease_runs_out_when_no_heartbeat_is_answered(pipe):
    consumer = pipe.member(**SESSION)
    lease = Lease(consumer)
    pipe.proxy.plant(faults.close("Heartbeat", client="member"))

    assert polled_until(consumer, lambda: not lease.held, 4)


# D16: a join that a change of metadata began is abandoned when a poll ends between the replies to
# JoinGroup and SyncGroup: no assignment, no heartbeats, no error, for ever.


@pytest.fixture
def growing(pipe, direct):
    """A member that holds three partitions and is about to be told, slowly, of a fourth."""
    consumer = KafkaConsumer(
        bootstrap_servers=pipe.proxy.bootstrap_servers,
        group_id=pipe.group,
        client_id="member",
        metadata_max_age_ms=200,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    consumer.subscribe([pipe.source])
    consumer.partitions_for_topic(pipe.source)
    assert polled_until(consumer, lambda: len(consumer.assignment()) == 3, 20)
    pipe.proxy.plant(faults.delay("SyncGroup", seconds=(0.3, 0.3), rng=Random(1), times=1))
    direct.admin.create_partitions({pipe.source: 4})
    yield consumer
    consumer.close(timeout_ms=2000)


@pytest.mark.matrix("D16", "F7", "F9")
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="D16: the join is never finished")
def test_defect_d16_a_slow_rebalance_for_new_partitions_ends(growing):
    assert polled_until(growing, lambda: len(growing.assignment()) == 4, 4)


@pytest.mark.matrix("D16", "F7", "F9")
def test_guard_d16_a_slow_rebalance_for_new_partitions_ends(growing):
    def grown():
        finish_rejoin(growing)
        return len(growing.assignment()) == 4

    assert polled_until(growing, grown, 20)
