"""D7, D8, D9, D10: what waits too long, for ever, or not at all."""

import threading
import time
from contextlib import suppress

import pytest
from kafka.errors import KafkaError

from benchmarks.chaos import network_faults as faults
from stream import clients, exactly_once
from stream.assignment import membership
from stream.batch import Outcome
from stream.producers import ProducerStuckError, end
from stream.settings import ProcessingSettings

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # cut connections
]

CONCURRENT_TRANSACTIONS = 51
PROCESSING = ProcessingSettings(guarantee="exactly_once", slot="a")
AWAY = ("EndTxn", "FindCoordinator")


@pytest.fixture
def returns():
    """Call something in a thread; tell whether it came back in time. Threads end with the test."""
    threads = []

    def call(action, seconds):
        def run():
            with suppress(KafkaError):
                action()

        threads.append(threading.Thread(target=run, daemon=True))
        threads[-1].start()
        threads[-1].join(seconds)
        return not threads[-1].is_alive()

    yield call
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


# D7: a commit without a flush leaves the flush on.


@pytest.mark.matrix("D7")
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="D7: flush_in_progress stays true")
def test_defect_d7_records_linger_after_a_commit_without_a_flush(pipe):
    producer = pipe.raw_producer(linger_ms=800)
    producer.begin_transaction()
    pipe.send(producer, b"first")
    producer.commit_transaction()
    producer.begin_transaction()
    began = time.monotonic()

    pipe.send(producer, b"second").get(timeout=5)

    assert time.monotonic() - began > 0.7


@pytest.mark.matrix("D7")
def test_guard_d7_no_flush_is_left_on(pipe):
    consumer = pipe.member()
    committer = pipe.exactly_once(consumer)

    pipe.batch(committer, membership(consumer), [b"first"], after=1)

    assert not committer._producer._accumulator.flush_in_progress()


# D8: the answer CONCURRENT_TRANSACTIONS costs a full back-off instead of 20 ms.


@pytest.mark.matrix("D8", "F22")
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="D8: the 20 ms override is unused")
def test_defect_d8_a_concurrent_transaction_delays_the_next_one_by_20_ms(pipe):
    producer = pipe.raw_producer(retry_backoff_ms=1000, delivery_timeout_ms=5000)
    producer.begin_transaction()
    pipe.proxy.plant(faults.error("AddPartitionsToTxn", code=CONCURRENT_TRANSACTIONS, times=1))
    began = time.monotonic()

    pipe.send(producer, b"late").get(timeout=10)

    assert time.monotonic() - began < 0.9


@pytest.mark.matrix("D8", "F22")
def test_guard_d8_concurrent_transactions_cost_little(pipe):
    consumer = pipe.member()
    committer = pipe.exactly_once(consumer)
    fault = pipe.proxy.plant(
        faults.error("AddPartitionsToTxn", code=CONCURRENT_TRANSACTIONS, times=20)
    )
    began = time.monotonic()

    outcome = pipe.batch(committer, membership(consumer), [b"late"], after=1)

    assert (outcome, fault.hits) == (Outcome.KEPT, 20)
    assert time.monotonic() - began < 1.4  # the client's own 100 ms would make it 2 s


# D9: calls without limit.


@pytest.mark.matrix("D9", "F21")
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="D9: commit waits without limit")
def test_defect_d9_a_commit_gives_up_when_no_coordinator_answers(pipe, returns):
    producer = pipe.raw_producer(max_block_ms=1000)
    producer.begin_transaction()
    pipe.send(producer, b"record").get(timeout=5)

    with pipe.proxy.plant(faults.close(*AWAY)):
        returned = returns(producer.commit_transaction, 3)

    assert returned


@pytest.mark.matrix("D9", "F21")
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="D9: offsets wait without limit")
def test_defect_d9_offsets_give_up_when_no_coordinator_answers(pipe, returns):
    producer = pipe.raw_producer(max_block_ms=1000)
    producer.begin_transaction()

    with pipe.proxy.plant(faults.close("AddOffsetsToTxn", "FindCoordinator")):
        returned = returns(
            lambda: producer.send_offsets_to_transaction(pipe.offsets(1), pipe.group), 3
        )

    assert returned


@pytest.mark.matrix("D9", "F21")
@pytest.mark.parametrize("api", ["AddOffsetsToTxn", "TxnOffsetCommit", "EndTxn"])
def test_guard_d9_a_batch_is_settled_when_no_coordinator_answers(pipe, monkeypatch, api):
    monkeypatch.setattr(exactly_once, "_STEP_MS", 2000)
    consumer = pipe.member()
    committer = pipe.exactly_once(consumer)
    began = time.monotonic()

    with pipe.proxy.plant(faults.close(api, "FindCoordinator", client="producer-1")):
        outcome = pipe.batch(committer, membership(consumer), [b"lost"], after=1)
    again = pipe.batch(committer, membership(consumer), [b"good"], after=2)

    assert time.monotonic() - began < 10
    assert (outcome, again) == (Outcome.ROLLED_BACK, Outcome.KEPT)
    assert (pipe.records(), pipe.committed()) == ([b"good"], 2)


@pytest.mark.matrix("D9", "F13")
def test_guard_d9_the_question_what_is_committed_outlasts_its_brokers(pipe):
    consumer = pipe.member()
    committer = pipe.at_least_once(consumer)
    fault = pipe.proxy.plant(faults.close("OffsetFetch", client="member", times=10))

    with pipe.proxy.plant(faults.close("Produce", client="producer-1")):
        outcome = pipe.batch(committer, membership(consumer), [b"lost"], after=1)

    assert fault.hits == 10
    assert outcome is Outcome.ROLLED_BACK


# D10: `close` with work pending.


@pytest.mark.matrix("D10")
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="D10: close leaves the sender alive")
def test_defect_d10_nothing_is_sent_after_a_close_that_timed_out(pipe, wait_until):
    producer = pipe.raw_producer(transactional_id=None)
    fault = pipe.proxy.plant(faults.stall("Produce"))
    pipe.send(producer, b"zombie")
    wait_until(lambda: fault.hits, 5, "it is under way")
    with suppress(KafkaError):
        producer.close(timeout=0.2)

    producer._sender.join(2)
    fault.lift()

    assert not producer._sender.is_alive()


@pytest.mark.matrix("D10")
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="D10: close never aborts")
def test_defect_d10_close_ends_an_open_transaction(pipe):
    producer = pipe.raw_producer()
    producer.begin_transaction()
    pipe.send(producer, b"open").get(timeout=5)

    producer.close(timeout=5)

    assert pipe.proxy.passed["EndTxn"] == 1


@pytest.mark.matrix("D10", "F3")
def test_guard_d10_an_ended_producer_sends_no_more(pipe, wait_until):
    producer = clients.producer(pipe.settings, client_id="zombie")
    fault = pipe.proxy.plant(faults.close("Produce"))
    pipe.send(producer, b"zombie")
    wait_until(lambda: fault.hits, 5, "it is under way")

    end(producer)
    fault.lift()

    assert not producer._sender.is_alive()
    assert pipe.records() == []


@pytest.mark.matrix("D10", "F3")
def test_guard_d10_a_successor_ends_an_open_transaction(pipe):
    consumer = pipe.member()
    committer = pipe.exactly_once(consumer)
    with pipe.proxy.plant(faults.close("AddOffsetsToTxn", "EndTxn", client="producer-1")):
        committer._producer.begin_transaction()
        pipe.send(committer._producer, b"open").get(timeout=5)
        committer.close()

    again = pipe.batch(pipe.exactly_once(consumer), membership(consumer), [b"good"], after=1)

    assert again is Outcome.KEPT
    assert pipe.records() == [b"good"]


@pytest.mark.matrix("D10", "F14", "F23")
@pytest.mark.xfail(strict=True, raises=ProducerStuckError, reason="it waits 5 s, the client 8 s")
def test_guard_d10_a_producer_whose_broker_went_silent_can_be_ended(pipe, wait_until):
    patient = {"request_timeout_ms": 8000, "delivery_timeout_ms": 10_000}
    producer = clients.transactional_producer(
        pipe.settings.model_copy(update=patient), PROCESSING, client_id="zombie", slot="a"
    )
    producer.init_transactions()
    producer.begin_transaction()
    pipe.proxy.plant(faults.close("AddPartitionsToTxn", times=1, client="zombie"))
    with pipe.proxy.plant(faults.silence("ApiVersions", client="zombie")) as fault:
        pipe.send(producer, b"zombie")
        wait_until(lambda: fault.hits, 10, "its next connection is silent")

        end(producer)

    assert not producer._sender.is_alive()
