"""The commit protocol: order, one strike, and what was committed is asked, not guessed."""

import time
from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import CommitFailedError, KafkaTimeoutError, TopicAuthorizationFailedError
from kafka.structs import ConsumerGroupMetadata

from stream import producers as module
from stream.at_least_once import AtLeastOnce
from stream.batch import Outcome, Send
from stream.monitor import StoppedError
from stream.producers import ProducerStuckError
from tests.stream.buffered import Buffer

TP = TopicPartition("clicks", 0)
SENDS = [Send("out", 0, b"k", b"v", []), Send("out", 1, b"k", b"w", [])]
BEFORE, AFTER = {TP: 5}, {TP: 7}
MEMBER = ConsumerGroupMetadata("app", 3, "m", None)


class Sender:
    def __init__(self, stuck):
        self._stuck = stuck

    def force_close(self):
        pass

    def join(self, timeout):
        pass

    def is_alive(self):
        return self._stuck


class Producer(Buffer):
    """A producer that notes its calls and fails where it is told to."""

    def __init__(self, calls, *, fails="", stuck=False, error=None):
        super().__init__()
        self._calls = calls
        self._error = error or KafkaTimeoutError("planted")
        self._fails = fails
        self._closed = fails == "closed"
        self._sender = Sender(stuck)

    def partitions_for(self, topic):
        self._note("metadata")

    def flush(self, timeout):
        records = self.settle(self._error if self._fails == "delivery" else None)
        self._note("flush")
        self._calls.append(f"{records} delivered")

    def close(self, timeout):
        self._calls.append("closed")

    def _note(self, call):
        self._calls.append(call)
        if self._fails == call:
            raise KafkaTimeoutError("planted")


@pytest.fixture
def calls():
    return []


@pytest.fixture
def consumer(calls):
    made = create_autospec(KafkaConsumer, instance=True)
    made.config = {"session_timeout_ms": 10_000}
    now = time.monotonic()
    made._coordinator = SimpleNamespace(
        heartbeat=SimpleNamespace(last_receive=now, last_reset=now - 1000)
    )
    made.commit.side_effect = lambda *_, **__: calls.append("commit")
    made.committed.return_value = BEFORE[TP]
    return made


@pytest.fixture
def make_committer(calls, consumer):
    def make(*producers):
        waiting = list(producers)
        return AtLeastOnce(
            consumer,
            lambda: waiting.pop(0),
            ["out"],
            delivery_timeout_seconds=1,
            beat=lambda: calls.append("beat"),
        )

    return make


def test_outputs_are_acknowledged_before_the_offsets_move(make_committer, calls, consumer):
    committer = make_committer(Producer(calls))

    assert committer.commit(SENDS, BEFORE, AFTER, MEMBER) is Outcome.KEPT

    assert calls == ["metadata", "beat", "flush", "2 delivered", "commit"]
    (offsets,) = consumer.commit.call_args.args
    assert {tp: entry.offset for tp, entry in offsets.items()} == AFTER


@pytest.mark.parametrize("fails", ["closed", "flush", "delivery"])
def test_no_offset_moves_after_a_failure_and_the_producer_is_never_used_again(
    make_committer, calls, consumer, fails
):
    committer = make_committer(Producer(calls, fails=fails), Producer(second := []))

    assert committer.commit(SENDS, BEFORE, AFTER, MEMBER) is Outcome.ROLLED_BACK

    consumer.commit.assert_not_called()
    assert "closed" in calls
    assert committer.renewals == 1
    assert committer.commit(SENDS, BEFORE, AFTER, MEMBER) is Outcome.KEPT
    assert second == ["metadata", "flush", "2 delivered"]


def test_what_is_not_allowed_is_raised_and_not_tried_again(make_committer, calls, consumer):
    error = TopicAuthorizationFailedError("planted")
    committer = make_committer(Producer(calls, fails="delivery", error=error), Producer(calls))

    with pytest.raises(TopicAuthorizationFailedError):
        committer.commit(SENDS, BEFORE, AFTER, MEMBER)

    consumer.commit.assert_not_called()
    assert committer.renewals == 0


@pytest.mark.parametrize(
    ("committed", "outcome"),
    [(7, Outcome.KEPT), (5, Outcome.ROLLED_BACK), (6, Outcome.UNKNOWN), (None, Outcome.UNKNOWN)],
)
def test_after_a_failed_commit_the_committed_offset_decides(
    make_committer, calls, consumer, committed, outcome
):
    consumer.commit.side_effect = CommitFailedError("planted")
    consumer.committed.return_value = committed
    committer = make_committer(Producer(calls), Producer(calls))

    assert committer.commit(SENDS, BEFORE, AFTER, MEMBER) is outcome


def test_a_sender_that_does_not_end_is_a_reason_to_leave(make_committer, calls):
    committer = make_committer(Producer(calls, fails="flush", stuck=True), Producer(calls))

    with pytest.raises(ProducerStuckError):
        committer.commit(SENDS, BEFORE, AFTER, MEMBER)


def test_a_producer_is_opened_again_and_again_while_the_brokers_are_away(
    make_committer, calls, monkeypatch
):
    monkeypatch.setattr(module.time, "sleep", lambda seconds: calls.append("pause"))
    away = Producer(gone := [], fails="metadata")
    committer = make_committer(Producer(calls, fails="flush"), away, Producer(calls))

    assert committer.commit(SENDS, BEFORE, AFTER, MEMBER) is Outcome.ROLLED_BACK

    assert gone == ["metadata", "closed"]
    assert calls.count("pause") == 1
    # Two attempts, one question, and one topic of each producer that found its metadata.
    assert calls.count("beat") == 5


def test_a_wait_for_brokers_ends_when_the_process_is_to_end(calls, consumer, monkeypatch):
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    beats = iter([True] * 20)

    def beat():
        if not next(beats, False):
            raise StoppedError

    producers = iter([Producer(calls, fails="flush")])
    committer = AtLeastOnce(
        consumer,
        lambda: next(producers, Producer([], fails="metadata")),
        ["out"],
        delivery_timeout_seconds=1,
        beat=beat,
    )

    with pytest.raises(StoppedError):
        committer.commit(SENDS, BEFORE, AFTER, MEMBER)


def test_closing_ends_the_producer(make_committer, calls):
    make_committer(Producer(calls)).close()

    assert calls == ["metadata", "beat", "closed"]


def test_a_bug_in_what_is_sent_is_raised_and_nothing_of_it_is_in_the_buffer(
    make_committer, calls, consumer
):
    producer = Producer(calls)
    committer = make_committer(producer)

    def sends():
        yield SENDS[0]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        committer.commit(sends(), BEFORE, AFTER, MEMBER)

    assert producer.batches == []
    consumer.commit.assert_not_called()


OTHER = TopicPartition("clicks", 1)


@pytest.mark.parametrize(
    ("committed", "outcome"),
    [
        ({TP: 7, OTHER: 3}, Outcome.KEPT),
        ({TP: 5, OTHER: 2}, Outcome.ROLLED_BACK),
        ({TP: 7, OTHER: 2}, Outcome.UNKNOWN),
        ({TP: 5, OTHER: None}, Outcome.UNKNOWN),
    ],
)
def test_partitions_that_went_apart_are_unknown(
    make_committer, calls, consumer, committed, outcome
):
    consumer.commit.side_effect = KafkaTimeoutError("planted")
    consumer.committed.side_effect = lambda tp, timeout_ms: committed[tp]
    committer = make_committer(Producer(calls), Producer(calls))

    assert committer.commit(SENDS, BEFORE | {OTHER: 2}, AFTER | {OTHER: 3}, MEMBER) is outcome


def test_pauses_before_a_new_producer_grow_to_five_seconds(make_committer, calls, monkeypatch):
    pauses = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    away = [Producer([], fails="metadata") for _ in range(9)]
    committer = make_committer(Producer(calls, fails="flush"), *away, Producer(calls))

    assert committer.commit(SENDS, BEFORE, AFTER, MEMBER) is Outcome.ROLLED_BACK

    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


def test_nothing_is_sent_or_committed_without_a_lease(make_committer, calls, consumer):
    committer = make_committer(Producer(calls), Producer(calls))
    consumer._coordinator.heartbeat.last_receive -= 100

    assert committer.commit(SENDS, BEFORE, AFTER, MEMBER) is Outcome.ROLLED_BACK

    assert "flush" not in calls
    consumer.commit.assert_not_called()


def test_a_lease_that_ends_while_records_are_sent_keeps_the_offsets(
    make_committer, calls, consumer
):
    class Slow(Producer):
        def flush(self, timeout):
            super().flush(timeout)
            consumer._coordinator.heartbeat.last_receive -= 100

    committer = make_committer(Slow(calls), Producer(calls))

    assert committer.commit(SENDS, BEFORE, AFTER, MEMBER) is Outcome.ROLLED_BACK

    assert "2 delivered" in calls
    consumer.commit.assert_not_called()
