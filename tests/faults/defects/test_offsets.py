"""D4 and D5: offsets committed by a member that is none, and offsets that nobody asked for."""

from contextlib import suppress

import pytest
from kafka.errors import KafkaError

from benchmarks.chaos import network_faults as faults
from stream.assignment import membership
from stream.batch import Outcome
from stream.exactly_once import FencedError

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # cut connections
]

ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID = 22, 25, 82
STALLING = {"max_poll_interval_ms": 1000}


def stalled(pipe, wait_until):
    """A member that did not poll for too long while another took over and committed 50.

    Returns it and the membership under which it polled last.
    """
    zombie = pipe.member(**STALLING)
    polled_under = membership(zombie)
    wait_until(lambda: membership(zombie) is None, 10, "the client leaves the group")
    owner = pipe.member()
    outcome = pipe.batch(pipe.exactly_once(owner), membership(owner), [b"owner"], after=50)
    assert outcome is Outcome.KEPT
    return zombie, polled_under


@pytest.mark.matrix("D4", "F4", "F5", "F20")
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="D4: metadata is a live view")
def test_defect_d4_a_member_that_left_cannot_move_offsets_back(pipe, wait_until):
    zombie, _ = stalled(pipe, wait_until)
    producer = pipe.raw_producer()
    producer.begin_transaction()
    pipe.send(producer, b"zombie").get(timeout=5)

    with suppress(KafkaError):
        producer.send_offsets_to_transaction(pipe.offsets(10), zombie.group_metadata())
        producer.commit_transaction()

    assert pipe.committed() == 50


@pytest.mark.matrix("D4", "F4", "F5", "F20")
def test_guard_d4_nobody_commits_without_a_membership(pipe, wait_until):
    zombie, polled_under = stalled(pipe, wait_until)

    assert polled_under is not None
    assert membership(zombie) is None


@pytest.mark.matrix("D4", "F4", "F5", "F20")
@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
def test_guard_d4_a_member_that_left_cannot_move_offsets_back(pipe, wait_until, guarantee):
    zombie, polled_under = stalled(pipe, wait_until)
    committer = getattr(pipe, guarantee)(zombie)

    outcome = pipe.batch(committer, polled_under, [b"zombie"], before=0, after=10)

    assert outcome is Outcome.UNKNOWN  # neither 0 nor 10: the partition has another owner
    assert pipe.committed() == 50
    if guarantee == "exactly_once":
        assert pipe.records() == [b"owner"]


@pytest.mark.matrix("D5", "F19")
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="D5: the offsets stay pending")
@pytest.mark.parametrize("code", [ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID])
def test_defect_d5_offsets_of_a_failed_transaction_are_dropped(pipe, code):
    producer = pipe.raw_producer()
    pipe.proxy.plant(faults.error("TxnOffsetCommit", code=code, times=1))
    producer.begin_transaction()
    with pytest.raises(KafkaError):
        producer.send_offsets_to_transaction(pipe.offsets(100), pipe.group)
    producer.abort_transaction()

    producer.begin_transaction()
    producer.send_offsets_to_transaction(pipe.offsets(7, partitions=[2]), pipe.group)
    producer.commit_transaction()

    assert (pipe.committed(0), pipe.committed(2)) == (0, 7)


@pytest.mark.matrix("D5", "F19")
@pytest.mark.parametrize("code", [ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID])
def test_guard_d5_offsets_of_a_failed_batch_are_in_no_later_one(pipe, code):
    consumer = pipe.member()
    committer = pipe.exactly_once(consumer)
    pipe.proxy.plant(faults.error("TxnOffsetCommit", code=code, times=1))

    outcome = pipe.batch(committer, membership(consumer), [b"failed"], after=100)
    again = pipe.batch(committer, membership(consumer), [b"good"], after=7, partition=2)

    assert (outcome, again) == (Outcome.ROLLED_BACK, Outcome.KEPT)
    assert (pipe.committed(0), pipe.committed(2)) == (0, 7)
    assert pipe.records() == [b"good"]


@pytest.mark.matrix("D5", "F19")
def test_guard_d5_a_fenced_member_ends_the_process_and_commits_nothing(pipe):
    consumer = pipe.member()
    committer = pipe.exactly_once(consumer)
    pipe.proxy.plant(faults.error("TxnOffsetCommit", code=FENCED_INSTANCE_ID, times=1))
    member = membership(consumer)

    with pytest.raises(FencedError):
        pipe.batch(committer, member, [b"failed"], after=100)
    again = pipe.batch(pipe.exactly_once(consumer), member, [b"good"], after=7, partition=2)

    assert again is Outcome.KEPT
    assert (pipe.committed(0), pipe.committed(2)) == (0, 7)
    assert pipe.records() == [b"good"]
