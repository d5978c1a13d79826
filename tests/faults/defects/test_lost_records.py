"""D1, D2, D3, D11: commits that return normally although records were lost or left behind."""

import pytest
from kafka.errors import KafkaError, KafkaTimeoutError

from benchmarks.chaos import network_faults as faults
from stream.assignment import membership
from stream.batch import Outcome
from stream.exactly_once import FencedError

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # cut connections
]

LOST, STALE, GOOD = b"lost", b"stale", b"good"
NOT_ENOUGH_REPLICAS = 19
OUT_OF_ORDER_SEQUENCE, INVALID_PRODUCER_EPOCH, UNKNOWN_PRODUCER_ID = 45, 47, 59


def outcome_of(call, *arguments):
    """The error that a call of the client raised, if any."""
    try:
        call(*arguments)
    except KafkaError as error:
        return error
    return None


# D1: a batch dies of its delivery timeout, the transaction goes on without it.

UNDELIVERED = {
    "closed": lambda **which: faults.close("Produce", **which),
    "silent": lambda **which: faults.silence("Produce", **which),
    "refused": lambda **which: faults.error("Produce", code=NOT_ENOUGH_REPLICAS, **which),
}


@pytest.mark.matrix("D1", "F16")
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="D1: state stays IN_TRANSACTION")
def test_defect_d1_a_commit_without_a_record_that_timed_out_fails(pipe):
    producer = pipe.raw_producer()
    producer.begin_transaction()
    pipe.send(producer, GOOD).get(timeout=5)
    producer.send_offsets_to_transaction(pipe.offsets(42), pipe.group)
    pipe.proxy.plant(faults.close("Produce"))
    with pytest.raises(KafkaError):
        pipe.send(producer, LOST).get(timeout=10)

    failed = outcome_of(producer.commit_transaction)

    assert failed or LOST in pipe.records()


@pytest.mark.matrix("D1", "D11", "F15", "F16")
@pytest.mark.parametrize(
    ("guarantee", "how"),
    [*(("exactly_once", how) for how in UNDELIVERED), ("at_least_once", "closed")],
)
def test_guard_d1_a_batch_without_a_record_that_timed_out_is_rolled_back(pipe, how, guarantee):
    consumer = pipe.member()
    committer = getattr(pipe, guarantee)(consumer)
    with pipe.proxy.plant(UNDELIVERED[how](client="producer-1")) as fault:
        outcome = pipe.batch(committer, membership(consumer), [LOST] * 3, after=42)
    again = pipe.batch(committer, membership(consumer), [GOOD], after=43)

    assert fault.hits
    assert (outcome, again) == (Outcome.ROLLED_BACK, Outcome.KEPT)
    assert pipe.committed() == 43
    assert committer.renewals == 1
    if guarantee == "exactly_once":
        assert pipe.records() == [GOOD]
    else:
        assert pipe.records()[-1] == GOOD


# D2: a sequence error while the commit waits bumps the epoch; the commit is never sent.


@pytest.mark.matrix("D2", "F17")
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="D2: EndTxn reported done, not sent")
@pytest.mark.parametrize("code", [OUT_OF_ORDER_SEQUENCE, INVALID_PRODUCER_EPOCH])
def test_defect_d2_a_commit_that_was_not_sent_fails(pipe, code):
    producer = pipe.raw_producer(linger_ms=300)
    pipe.proxy.plant(faults.error("Produce", code=code, times=1))
    producer.begin_transaction()
    pipe.send(producer, LOST)
    producer.send_offsets_to_transaction(pipe.offsets(42), pipe.group)

    failed = outcome_of(producer.commit_transaction)

    assert failed or (pipe.records(), pipe.committed()) == ([LOST], 42)


@pytest.mark.matrix("D2", "F17")
def test_guard_d2_a_sequence_error_rolls_the_batch_back(pipe):
    consumer = pipe.member()
    committer = pipe.exactly_once(consumer)
    pipe.proxy.plant(faults.error("Produce", code=OUT_OF_ORDER_SEQUENCE, times=1))

    outcome = pipe.batch(committer, membership(consumer), [LOST], after=42)
    again = pipe.batch(committer, membership(consumer), [GOOD], after=43)

    assert (outcome, again) == (Outcome.ROLLED_BACK, Outcome.KEPT)
    assert (pipe.records(), pipe.committed()) == ([GOOD], 43)


@pytest.mark.matrix("D2", "F17")
def test_guard_d2_an_epoch_error_ends_the_process_and_loses_nothing(pipe):
    consumer = pipe.member()
    committer = pipe.exactly_once(consumer)
    pipe.proxy.plant(faults.error("Produce", code=INVALID_PRODUCER_EPOCH, times=1))
    member = membership(consumer)

    with pytest.raises(FencedError):
        pipe.batch(committer, member, [LOST], after=42)
    restarted = pipe.exactly_once(consumer)
    again = pipe.batch(restarted, member, [GOOD], after=43)

    assert again is Outcome.KEPT
    assert (pipe.records(), pipe.committed()) == ([GOOD], 43)


@pytest.mark.matrix("D2", "F17")
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="acknowledged offsets may fall")
def test_guard_d2_a_forgotten_producer_id_loses_no_later_record(pipe):
    consumer = pipe.member()
    committer = pipe.exactly_once(consumer)
    pipe.proxy.plant(faults.error("Produce", code=UNKNOWN_PRODUCER_ID, times=1))

    first = pipe.batch(committer, membership(consumer), [b"first"], after=42)
    second = pipe.batch(committer, membership(consumer), [b"second"], before=42, after=43)

    if first is Outcome.ROLLED_BACK:
        assert (pipe.records(), pipe.committed()) == ([b"second"], 43)
    else:
        assert second is Outcome.KEPT
        assert (pipe.records(), pipe.committed()) == ([b"first", b"second"], 43)


@pytest.mark.matrix("D2", "F17")
@pytest.mark.parametrize(
    "code",
    [
        OUT_OF_ORDER_SEQUENCE,
        pytest.param(
            UNKNOWN_PRODUCER_ID,
            marks=pytest.mark.xfail(
                strict=True, raises=AssertionError, reason="acknowledged offsets may fall"
            ),
        ),
    ],
)
def test_guard_d2_at_least_once_answers_the_batch_again(pipe, code):
    consumer = pipe.member()
    committer = pipe.at_least_once(consumer)
    pipe.proxy.plant(faults.error("Produce", code=code, times=1))

    first = pipe.batch(committer, membership(consumer), [b"first"], after=42)
    if first is Outcome.ROLLED_BACK:
        first = pipe.batch(committer, membership(consumer), [b"first"], after=42)
    second = pipe.batch(committer, membership(consumer), [b"second"], before=42, after=43)

    assert (first, second) == (Outcome.KEPT, Outcome.KEPT)
    assert set(pipe.records()) == {b"first", b"second"}


# D11: a batch that expires between two attempts takes those with it that were just drained.


@pytest.mark.matrix("D11", "F16")
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="D11: the sender raises in between")
def test_defect_d11_a_batch_that_expires_stops_no_other(pipe, wait_until, monkeypatch):
    producer = pipe.raw_producer()
    producer._accumulator.config["retry_backoff_ms"] = 5000  # it expires before its next attempt
    producer.begin_transaction()
    pipe.send(producer, GOOD, partition=1).get(timeout=5)
    fault = pipe.proxy.plant(faults.error("Produce", code=NOT_ENOUGH_REPLICAS, times=1))
    expiring = pipe.send(producer, LOST)
    wait_until(lambda: fault.hits, 5, "it waits for its second attempt")
    monkeypatch.setattr(producer._sender, "wakeup", lambda: None)  # drained at the expiry only

    other = pipe.send(producer, GOOD, partition=1)

    assert isinstance(outcome_of(expiring.get, 5), KafkaTimeoutError)
    assert outcome_of(other.get, 5) is None


# D3: what was queued behind such an error rides in the next transaction.


@pytest.mark.matrix("D3", "F18")
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="D3: queued records survive")
def test_defect_d3_queued_records_of_a_failed_transaction_are_dropped(pipe, wait_until):
    producer = pipe.raw_producer()
    kept = pipe.proxy.plant(faults.stall("Produce", on="reply", times=1))
    pipe.proxy.plant(faults.error("Produce", code=OUT_OF_ORDER_SEQUENCE, times=1))
    producer.begin_transaction()
    first = pipe.send(producer, LOST)
    wait_until(lambda: kept.hits, 5, "the first is under way")
    pipe.send(producer, STALE)
    kept.lift()
    wait_until(lambda: first.is_done, 5, "the first has failed")
    outcome_of(producer.abort_transaction)
    wait_until(lambda: outcome_of(producer.begin_transaction) is None, 5, "another one begins")
    pipe.send(producer, GOOD)
    producer.flush(timeout=5)
    producer.commit_transaction()

    assert pipe.records() == [GOOD]


@pytest.mark.matrix("D3", "F18")
@pytest.mark.parametrize("code", [OUT_OF_ORDER_SEQUENCE, NOT_ENOUGH_REPLICAS])
def test_guard_d3_no_record_of_a_failed_batch_is_in_a_later_one(pipe, code):
    pipe.settings = pipe.settings.model_copy(update={"producer": {"batch_size": 64}})
    consumer = pipe.member()
    committer = pipe.exactly_once(consumer)
    with pipe.proxy.plant(faults.error("Produce", code=code, client="producer-1")):
        outcome = pipe.batch(committer, membership(consumer), [STALE * 20] * 5, after=42)
    again = pipe.batch(committer, membership(consumer), [GOOD], after=43)

    assert (outcome, again) == (Outcome.ROLLED_BACK, Outcome.KEPT)
    assert (pipe.records(), pipe.committed()) == ([GOOD], 43)
