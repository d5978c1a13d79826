"""D15: a request that a network delivers when its sender has long gone on."""

import threading

import pytest

from benchmarks.chaos import network_faults as faults
from benchmarks.chaos.proxy import deliver
from stream.assignment import membership
from stream.batch import Outcome

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # cut connections
]


@pytest.mark.matrix("D15", "F21")
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="D15: the id and epoch still fit")
def test_defect_d15_a_late_commit_does_not_end_the_next_transaction(pipe):
    producer = pipe.raw_producer()
    fault = pipe.proxy.plant(faults.hold("EndTxn", times=1))
    producer.begin_transaction()
    pipe.send(producer, b"first").get(timeout=5)
    producer.commit_transaction()
    producer.begin_transaction()
    pipe.send(producer, b"second").get(timeout=5)

    deliver(fault.held[0])

    assert pipe.records(settled=False) == [b"first"]


@pytest.mark.matrix("D15", "F21")
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="D15: the id and epoch still fit")
def test_defect_d15_late_offsets_do_not_replace_those_of_the_next_transaction(pipe):
    producer = pipe.raw_producer()
    fault = pipe.proxy.plant(faults.hold("TxnOffsetCommit", times=1))
    producer.begin_transaction()
    producer.send_offsets_to_transaction(pipe.offsets(10), pipe.group)
    producer.commit_transaction()
    producer.begin_transaction()
    producer.send_offsets_to_transaction(pipe.offsets(20), pipe.group)

    deliver(fault.held[0])
    producer.commit_transaction()

    assert pipe.committed() == 20


def codes_of(reply):
    """The error codes in a reply to EndTxn or TxnOffsetCommit."""
    if reply.name == "EndTxnResponse":
        return [reply.error_code]
    return [partition.error_code for topic in reply.topics for partition in topic.partitions]


@pytest.mark.matrix("D15", "F14", "F21")
@pytest.mark.parametrize(
    ("late", "while_at"),
    [
        ("EndTxn", "AddOffsetsToTxn"),
        ("EndTxn", "TxnOffsetCommit"),
        ("EndTxn", "EndTxn"),
        ("TxnOffsetCommit", "EndTxn"),
        ("AddOffsetsToTxn", "EndTxn"),
        ("AddPartitionsToTxn", "EndTxn"),
        ("Produce", "EndTxn"),
    ],
)
def test_guard_d15_a_late_copy_takes_no_part_in_the_next_batch(pipe, wait_until, late, while_at):
    consumer = pipe.member()
    committer = pipe.exactly_once(consumer)
    fault = pipe.proxy.plant(faults.hold(late, times=1, client="producer-1"))
    first = pipe.batch(committer, membership(consumer), [b"first"], after=10)
    stalled = pipe.proxy.plant(faults.stall(while_at, client="producer"))
    outcomes = []

    def second():
        member = membership(consumer)
        outcomes.append(pipe.batch(committer, member, [b"second"], before=10, after=20))

    thread = threading.Thread(target=second)
    thread.start()
    wait_until(lambda: stalled.hits, 10, "the second transaction is open")
    reply = deliver(fault.held[0])
    seen_in_between = pipe.records(settled=False)
    stalled.lift()
    thread.join(20)

    assert (first, outcomes) == (Outcome.KEPT, [Outcome.KEPT])
    assert seen_in_between == [b"first"]
    assert (pipe.records(), pipe.committed()) == ([b"first", b"second"], 20)
    if late in ("EndTxn", "TxnOffsetCommit"):
        assert all(codes_of(reply))
    assert committer.renewals == (0 if late == "Produce" else 1)


@pytest.mark.matrix("D15", "F14")
def test_guard_d15_a_slow_transaction_is_followed_by_a_new_producer(pipe, wait_until):
    pipe.settings = pipe.settings.model_copy(
        update={"request_timeout_ms": 5000, "delivery_timeout_ms": 6000}
    )
    consumer = pipe.member()
    committer = pipe.exactly_once(consumer)
    stalled = pipe.proxy.plant(faults.stall("EndTxn", on="reply", times=1))
    threading.Timer(1.2, stalled.lift).start()

    outcome = pipe.batch(committer, membership(consumer), [b"first"], after=10)

    assert outcome is Outcome.KEPT
    assert committer.renewals == 1


@pytest.mark.matrix("D15")
def test_guard_d15_undisturbed_batches_keep_their_producer(pipe):
    consumer = pipe.member()
    committer = pipe.exactly_once(consumer)

    outcomes = [
        pipe.batch(committer, membership(consumer), [b"%d" % n], before=n, after=n + 1)
        for n in range(20)
    ]

    assert outcomes == [Outcome.KEPT] * 20
    assert committer.renewals == 0
    assert pipe.records() == [b"%d" % n for n in range(20)]
