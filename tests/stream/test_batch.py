"""The commit protocol on clients in memory: the order, one strike, what is asked afterwards."""

import threading
from types import SimpleNamespace

import pytest
from kafka import TopicPartition
from kafka.errors import (
    CommitFailedError,
    KafkaConnectionError,
    KafkaTimeoutError,
    NotLeaderForPartitionError,
)

from stream import batch as module
from stream.batch import AtLeastOnce, Outcome, ProducerStuckError, Send

ONE, TWO = TopicPartition("clicks", 0), TopicPartition("clicks", 1)
BEFORE, AFTER = {ONE: 5, TWO: 7}, {ONE: 9, TWO: 8}
SENDS = [
    Send("recommendations", 0, b"u1", b"v1", [("n", b"1")]),
    Send("sessions", 1, b"u2", None, []),
]


class Sender(threading.Thread):
    """A producer's thread: it ends when it is told to, or never."""

    def __init__(self, events, ends=True):
        super().__init__(daemon=True)
        self._events = events
        self._ends = ends
        self._forced = threading.Event()
        self.start()

    def run(self):
        self._forced.wait(60)

    def force_close(self):
        self._events.append("force close")
        if self._ends:
            self._forced.set()

    def join(self, timeout=None):
        super().join(timeout if self._ends else 0)

    def wakeup(self):
        self._events.append("wake")


class Future:
    """The future of one record; `failure` is what a broker said of it."""

    def __init__(self, failure=None):
        self._done = failure != "never"
        self.exception = failure if self._done else None

    def succeeded(self):
        return self._done and self.exception is None


class Producer:
    """A producer that fails as planted: `faults` maps a step to its error."""

    def __init__(self, events, ends=True, **faults):
        self._events = events
        self._faults = faults
        self._sender = Sender(events, ends)

    def _step(self, name):
        self._events.append(name)
        if isinstance(self._faults.get(name), Exception):
            raise self._faults[name]

    def partitions_for(self, topic):
        self._step(f"metadata of {topic}")

    def send(self, topic, *, value, key, headers, partition):
        self._sender.wakeup()  # as the client does at each record that opens a batch
        self._step(f"send {topic}/{partition} {key} {value} {headers}")
        return Future(self._faults.get("future"))

    def flush(self, timeout):
        self._sender.wakeup()
        self._step("flush")

    def close(self, timeout):
        assert not self._sender.is_alive()
        self._step("close")


class Consumer:
    """The group's side: what is committed, and how asking or committing fails."""

    def __init__(self, events):
        self._events = events
        self.offsets = dict(BEFORE)
        self.error = None
        self.applied = True

    def commit(self, offsets, timeout_ms):
        self._events.append("commit")
        if self.applied:
            self.offsets |= {tp: committed.offset for tp, committed in offsets.items()}
        if self.error is not None:
            raise self.error

    def committed(self, tp, timeout_ms):
        self._events.append("ask")
        return self.offsets.get(tp)


class Bench:
    """A committer, the clients that it opens one after another, and everything they did."""

    def __init__(self, *producers):
        self.events = []
        self.consumer = Consumer(self.events)
        self.waiting = [*producers]
        self.made = []
        self.beats = 0
        self.committer = AtLeastOnce(
            self.consumer,
            self._make,
            ("sessions",),
            delivery_timeout_seconds=2.0,
            beat=self._beat,
        )
        self.events.clear()

    def _make(self):
        options = self.waiting.pop(0) if self.waiting else {}
        if isinstance(options, Exception):
            raise options
        self.made.append(Producer(self.events, **options))
        return self.made[-1]

    def _beat(self):
        self.beats += 1

    def commit(self, sends=SENDS):
        return self.committer.commit(sends, BEFORE, AFTER)


FIRST_SEND = "send recommendations/0 b'u1' b'v1' [('n', b'1')]"
SECOND_SEND = "send sessions/1 b'u2' None []"
RENEWED = ["force close", "close", "metadata of sessions", "ask", "ask"]


def test_outputs_are_flushed_before_offsets_move():
    bench = Bench()

    assert bench.commit() is Outcome.KEPT

    assert bench.events == [FIRST_SEND, SECOND_SEND, "wake", "flush", "commit"]
    assert bench.consumer.offsets == AFTER
    assert bench.committer.renewals == 0


def test_a_batch_without_outputs_moves_its_offsets():
    bench = Bench()

    assert bench.commit([]) is Outcome.KEPT
    assert bench.consumer.offsets == AFTER


FAULTS = {
    "the first send": {FIRST_SEND: KafkaTimeoutError("no metadata")},
    "the second send": {SECOND_SEND: KafkaTimeoutError("no memory")},
    "the flush": {"flush": KafkaTimeoutError("2 s")},
    "one record": {"future": NotLeaderForPartitionError("moved")},
    "a record without an answer": {"future": "never"},
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_after_any_failure_the_producer_is_gone_and_nothing_is_committed(fault):
    bench = Bench(fault)

    assert bench.commit() is Outcome.ROLLED_BACK

    assert bench.events[-len(RENEWED) :] == RENEWED
    assert "commit" not in bench.events
    assert bench.consumer.offsets == BEFORE
    assert not bench.made[0]._sender.is_alive()
    assert (len(bench.made), bench.committer.renewals) == (2, 1)
    assert bench.beats > 0
    assert bench.commit() is Outcome.KEPT
    assert len(bench.made) == 2


@pytest.mark.parametrize(
    ("offsets", "outcome"),
    [
        (AFTER, Outcome.KEPT),
        (BEFORE, Outcome.ROLLED_BACK),
        ({ONE: 9, TWO: 7}, Outcome.UNKNOWN),
        ({ONE: 6, TWO: 7}, Outcome.UNKNOWN),
        ({ONE: 5}, Outcome.UNKNOWN),
    ],
)
@pytest.mark.parametrize("error", [KafkaTimeoutError("lost"), CommitFailedError("moved")])
def test_what_a_failed_commit_left_is_asked_not_guessed(offsets, outcome, error):
    bench = Bench()
    bench.consumer.error, bench.consumer.applied = error, False
    bench.consumer.offsets = dict(offsets)

    assert bench.commit() is outcome
    assert bench.committer.renewals == 1


def test_the_sender_sleeps_until_the_flush_and_can_be_woken_after_a_failed_send():
    bench = Bench({SECOND_SEND: KafkaTimeoutError("no memory")})
    sender = bench.made[0]._sender

    bench.commit()
    bench.events.clear()
    sender.wakeup()

    assert bench.events == ["wake"]


def test_a_bug_in_what_is_sent_is_raised_with_the_sender_awake():
    bench = Bench()

    def sends():
        yield SENDS[0]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bench.commit(sends())
    bench.made[0]._sender.wakeup()

    assert bench.events == [FIRST_SEND, "wake"]
    assert bench.consumer.offsets == BEFORE


def test_a_sender_that_does_not_end_is_not_left_behind():
    bench = Bench({"ends": False, "flush": KafkaTimeoutError("2 s")})

    with pytest.raises(ProducerStuckError):
        bench.commit()
    assert len(bench.made) == 1


@pytest.fixture
def clock(monkeypatch):
    """The protocol's own time: pauses pass at once and are noted."""
    pauses = []
    own = SimpleNamespace(monotonic=lambda: sum(pauses), sleep=pauses.append)
    monkeypatch.setattr(module, "time", own)
    return pauses


def test_a_new_producer_is_awaited_with_growing_pauses(clock):
    away = [KafkaConnectionError("away"), ConnectionRefusedError(), KafkaTimeoutError("away")]
    bench = Bench({"flush": KafkaTimeoutError("2 s")}, *away)

    assert bench.commit() is Outcome.ROLLED_BACK
    assert clock == [0.1, 0.2, 0.4]
    assert bench.beats >= 4


def test_a_new_producer_is_not_awaited_for_ever(clock):
    away = KafkaConnectionError("away")
    bench = Bench({"flush": KafkaTimeoutError("2 s")}, *[away] * 100)

    with pytest.raises(KafkaConnectionError):
        bench.commit()
    assert 60 < sum(clock) < 70
    assert max(clock) == 5.0


def test_a_producer_that_finds_no_topics_is_not_left_running(clock):
    bench = Bench(
        {"flush": KafkaTimeoutError("2 s")}, {"metadata of sessions": KafkaTimeoutError("8 s")}
    )

    assert bench.commit() is Outcome.ROLLED_BACK
    assert [producer._sender.is_alive() for producer in bench.made] == [False, False, True]


def test_closing_ends_the_producer_whatever_it_says():
    bench = Bench({"close": KafkaTimeoutError("0 s")})

    bench.committer.close()

    assert bench.events == ["force close", "close"]
    assert not bench.made[0]._sender.is_alive()
