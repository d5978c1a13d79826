"""The transaction of a batch: order, one strike, in doubt is asked, and who must leave."""

import itertools
from unittest.mock import create_autospec

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import (
    FencedInstanceIdError,
    InvalidProducerEpochError,
    InvalidTxnStateError,
    KafkaError,
    KafkaTimeoutError,
    OutOfOrderSequenceNumberError,
    ProducerFencedError,
    TransactionalIdAuthorizationFailedError,
)
from kafka.structs import ConsumerGroupMetadata

from stream import exactly_once as module
from stream.batch import Outcome, Send
from stream.exactly_once import ExactlyOnce, FencedError
from tests.stream.buffered import Buffer

TP = TopicPartition("clicks", 0)
SENDS = [Send("out", 0, b"k", b"v", []), Send("out", 1, b"k", b"w", [])]
BEFORE, AFTER = {TP: 5}, {TP: 7}
MEMBER = ConsumerGroupMetadata("app", 3, "m", None)


class Result:
    def __init__(self, error=None, answered=True):
        self._error = error
        self._answered = answered

    def wait(self, timeout_ms):
        assert timeout_ms
        if self._error:
            raise self._error
        return self._answered


class Manager:
    """The client's transaction manager: notes calls, fails where it is told to."""

    transactional_id = "app-slot"

    def __init__(self, calls, errors):
        self._calls = calls
        self._errors = errors
        self.last_error = errors.get("last")
        self._coordinators = {"transaction": 1}

    def is_transactional(self):
        return True

    def maybe_add_partition_to_transaction(self, tp):
        self._calls.append(("part", tp.partition))
        if self._errors.get("part"):
            raise self._errors["part"]

    def send_offsets_to_transaction(self, offsets, member):
        self._calls.append(("offsets", {tp: o.offset for tp, o in offsets.items()}, member))
        if self._errors.get("lost"):
            self._lookup_coordinator("transaction", "app-slot")
        if self._errors.get("first lookup"):
            self._lookup_coordinator("group", "app")
        return self._result("offsets")

    def begin_commit(self):
        self._calls.append("commit")
        return self._result("commit")

    def coordinator(self, kind):
        return self._coordinators.get(kind)

    def _lookup_coordinator(self, kind, key):
        self._coordinators[kind] = None

    def _result(self, step):
        error = self._errors.get(step)
        return Result(answered=False) if error == "silence" else Result(error)


class Sender:
    def __init__(self, calls):
        self._calls = calls

    def wakeup(self):
        pass

    def force_close(self):
        self._calls.append("sender closed")

    def join(self, timeout):
        pass

    def is_alive(self):
        return False


class Producer(Buffer):
    def __init__(self, calls, **errors):
        super().__init__(transactions=Manager(calls, errors))
        self._calls = calls
        self._errors = errors
        self._sender = Sender(calls)

    def partitions_for(self, topic):
        return {0, 1}

    def init_transactions(self):
        self._note("init")

    def begin_transaction(self):
        self._note("begin")

    def flush(self, timeout):
        self.settle(self._errors.get("delivery"))
        self._note("flush")

    def close(self, timeout):
        pass

    def _note(self, call):
        self._calls.append(call)
        if self._errors.get(call):
            raise self._errors[call]


@pytest.fixture
def calls():
    return []


@pytest.fixture
def consumer():
    made = create_autospec(KafkaConsumer, spec_set=True, instance=True)
    made.committed.return_value = BEFORE[TP]
    return made


@pytest.fixture
def make_committer(consumer):
    def make(*producers):
        waiting = list(producers)
        return ExactlyOnce(
            consumer,
            lambda: waiting.pop(0),
            ["out"],
            delivery_timeout_seconds=1,
            beat=lambda: None,
        )

    return make


def commit(committer):
    return committer.commit(SENDS, BEFORE, AFTER, MEMBER)


def test_a_batch_is_one_transaction_whose_offsets_come_after_every_acknowledgement(
    make_committer, calls, consumer
):
    committer = make_committer(Producer(calls))

    assert commit(committer) is Outcome.KEPT

    offsets = ("offsets", AFTER, MEMBER)
    parts = [("part", 0), ("part", 1)]
    assert calls == ["init", "begin", *parts, "flush", offsets, "commit"]
    consumer.commit.assert_not_called()
    assert committer.renewals == 0


@pytest.mark.parametrize(
    "errors",
    [
        {"begin": KafkaError("planted")},
        {"part": KafkaTimeoutError("planted")},
        {"flush": KafkaTimeoutError("planted")},
        {"delivery": KafkaTimeoutError("planted")},
        {"delivery": OutOfOrderSequenceNumberError()},
        {"offsets": KafkaError("planted")},
        {"offsets": "silence"},
        {"commit": "silence"},
    ],
)
def test_after_a_failure_a_successor_takes_over_before_the_old_sender_is_ended(
    make_committer, calls, errors
):
    committer = make_committer(Producer(calls, **errors), Producer(calls))

    assert commit(committer) is Outcome.ROLLED_BACK

    assert committer.renewals == 1
    assert calls[-2:] == ["init", "sender closed"]
    assert "abort" not in calls


@pytest.mark.parametrize("step", ["delivery", "offsets"])
def test_nothing_is_committed_that_was_not_delivered(make_committer, calls, step):
    committer = make_committer(
        Producer(calls, **{step: KafkaTimeoutError("planted")}), Producer([])
    )

    commit(committer)

    assert "commit" not in calls


@pytest.mark.parametrize(
    ("committed", "outcome"),
    [(7, Outcome.KEPT), (5, Outcome.ROLLED_BACK), (6, Outcome.UNKNOWN), (None, Outcome.UNKNOWN)],
)
def test_a_commit_in_doubt_is_asked(make_committer, calls, consumer, committed, outcome):
    consumer.committed.return_value = committed
    committer = make_committer(Producer(calls, commit="silence"), Producer([]))

    assert commit(committer) is outcome


@pytest.mark.parametrize(
    "errors",
    [
        {"begin": ProducerFencedError()},
        {"delivery": InvalidProducerEpochError()},
        {"offsets": ProducerFencedError()},
        {"offsets": FencedInstanceIdError()},
        {"offsets": KafkaError(InvalidTxnStateError())},
        {"part": KafkaError("an earlier request failed", ProducerFencedError())},
        {"begin": KafkaError("in an error state"), "last": InvalidProducerEpochError()},
    ],
)
def test_a_producer_that_was_fenced_is_not_replaced(make_committer, calls, consumer, errors):
    committer = make_committer(Producer(calls, **errors))

    with pytest.raises(FencedError, match=r"app-slot.*processing\.slot"):
        commit(committer)

    assert committer.renewals == 0
    consumer.committed.assert_not_called()


def test_what_is_not_allowed_is_raised_and_not_tried_again(make_committer, calls):
    error = KafkaError("fatal", TransactionalIdAuthorizationFailedError())
    committer = make_committer(Producer(calls, offsets=error))

    with pytest.raises(TransactionalIdAuthorizationFailedError):
        commit(committer)


def test_a_lost_connection_renews_the_producer_after_the_commit(make_committer, calls):
    committer = make_committer(Producer(calls, lost=True), Producer(second := []))

    assert commit(committer) is Outcome.KEPT

    assert committer.renewals == 1
    assert second == ["init"]
    assert calls[-1] == "sender closed"


def test_looking_a_coordinator_up_for_the_first_time_is_no_loss(make_committer, calls):
    committer = make_committer(Producer(calls, **{"first lookup": True}))

    assert commit(committer) is Outcome.KEPT
    assert committer.renewals == 0


def test_a_slow_transaction_renews_the_producer_after_the_commit(
    make_committer, calls, monkeypatch
):
    clock = itertools.count(10.0, 1.5)
    committer = make_committer(Producer(calls), Producer([]))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))

    assert commit(committer) is Outcome.KEPT
    assert committer.renewals == 1


def test_a_successor_that_finds_itself_fenced_leaves(make_committer, calls):
    committer = make_committer(
        Producer(calls, flush=KafkaTimeoutError("planted")),
        Producer([], init=ProducerFencedError()),
    )

    with pytest.raises(FencedError):
        commit(committer)


def test_closing_ends_the_producer(make_committer, calls):
    make_committer(Producer(calls)).close()

    assert calls == ["init", "sender closed"]
