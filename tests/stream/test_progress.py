"""The watch over partitions that are silently not fetched: its verdicts."""

import pytest
from kafka import TopicPartition
from kafka.errors import (
    IllegalStateError,
    KafkaTimeoutError,
    NoOffsetForPartitionError,
    TopicAuthorizationFailedError,
)
from prometheus_client import CollectorRegistry, Gauge

from stream.progress import PartitionStalledError, ProgressWatch

A, B = TopicPartition("clicks", 0), TopicPartition("clicks", 1)
RECORD = object()


class Coordinator:
    def __init__(self):
        self.rejoining = False
        self.num_requests = 0

    def request_rejoin(self):
        self.num_requests += 1


class Cluster:
    """What the client knows of the brokers."""

    def __init__(self):
        self.updates = 0

    def request_update(self):
        self.updates += 1


class Consumer:
    """What the watch asks of a client."""

    config = {"max_poll_interval_ms": 60_000}  # noqa: RUF012  as the client has it

    def __init__(self):
        self.ends = {A: 10, B: 10}
        self.given = {A, B}
        self._coordinator = Coordinator()
        self._cluster = Cluster()
        self.positions = {}
        self.at_pause = set()
        self.error = None
        self.asked = []

    def assignment(self):
        return self.given

    def paused(self):
        return self.at_pause

    def end_offsets(self, partitions, timeout_ms):
        assert timeout_ms == 1_000
        self.asked.append(set(partitions))
        if self.error:
            raise self.error
        return {tp: self.ends[tp] for tp in partitions}

    def position(self, tp, timeout_ms):
        return self.positions.get(tp)


class Loop:
    """A worker's loop a second at a time: the watch is asked after each round."""

    def __init__(self):
        self.consumer = Consumer()
        self.registry = CollectorRegistry()
        gauge = Gauge("stalled", "s", ("topic", "partition"), registry=self.registry)
        self.watch = ProgressWatch(self.consumer, gauge, max_records=3)
        self.next_offsets = {A: 5, B: 10}
        self.now = 1_000.0

    def run(self, seconds, polled=None, *, step=1.0):
        for _ in range(int(seconds / step)):
            self.now += step
            self.watch.check(polled or {}, self.next_offsets, self.now)

    def stalled_for(self, tp):
        labels = {"topic": tp.topic, "partition": str(tp.partition)}
        return self.registry.get_sample_value("stalled", labels)


@pytest.fixture
def loop():
    return Loop()


def test_a_partition_where_records_wait_and_none_comes_is_stalled(loop):
    with pytest.raises(PartitionStalledError, match=r"clicks/0 stands at 5 for 30 s"):
        loop.run(60)

    assert loop.now == pytest.approx(1_000 + 1 + 5 + 30)
    assert loop.stalled_for(A) == 30
    assert loop.stalled_for(B) == 0


def test_before_the_verdict_the_gauge_rises(loop):
    loop.run(26)

    assert loop.stalled_for(A) == 20


def test_at_the_end_of_the_log_nothing_stalls(loop):
    loop.next_offsets[A] = 10

    loop.run(600)


def test_a_partition_that_delivers_is_not_even_asked_for(loop):
    loop.run(600, {A: [RECORD], B: [RECORD]})

    assert loop.consumer.asked == []


def test_another_partition_that_delivers_does_not_hide_the_stall(loop):
    with pytest.raises(PartitionStalledError, match="clicks/0"):
        loop.run(60, {B: [RECORD]})


def test_a_batch_that_fails_again_and_again_is_no_stalled_client(loop):
    for _ in range(100):
        loop.run(1, {A: [RECORD]})  # rolled back: the next offset stays where it is
        loop.run(2)


def test_a_paused_partition_is_left_alone(loop):
    loop.consumer.at_pause = {A}

    loop.run(600)


def test_a_partition_waits_its_turn_while_polls_are_full(loop):
    loop.run(600, {B: [RECORD] * 3})


def test_markers_and_aborted_records_that_are_passed_are_progress(loop):
    loop.consumer.positions[A] = 5
    loop.consumer.ends[A] = 10_000
    for _ in range(100):
        loop.run(5)
        loop.consumer.positions[A] += 10


def test_a_position_beyond_the_marker_at_the_end_is_the_end(loop):
    loop.consumer.positions[A] = 10

    loop.run(600)


@pytest.mark.parametrize(
    "error", [KafkaTimeoutError("x"), NoOffsetForPartitionError("x"), IllegalStateError("x")]
)
def test_without_an_answer_the_clock_is_held(loop, error):
    loop.run(26)

    loop.consumer.error = error
    loop.run(600)
    asked = len(loop.consumer.asked)
    loop.consumer.error = None
    loop.run(10)

    assert asked == 5 + 120
    assert loop.stalled_for(A) == 25
    with pytest.raises(PartitionStalledError):
        loop.run(5)


def test_what_is_not_allowed_is_no_matter_of_waiting(loop):
    loop.consumer.error = TopicAuthorizationFailedError("clicks")

    with pytest.raises(TopicAuthorizationFailedError):
        loop.run(10)


def test_a_long_round_counts_for_nothing_since_nobody_polled(loop):
    loop.run(26)

    loop.run(3_000, step=60.0)

    assert loop.stalled_for(A) == 20


def test_a_record_begins_the_time_anew(loop):
    loop.run(26)
    loop.run(1, {A: [RECORD]})
    loop.next_offsets[A] = 6

    loop.run(29)

    assert loop.stalled_for(A) == 20


def test_a_partition_that_moved_away_and_came_back_begins_anew(loop):
    loop.run(26)
    del loop.next_offsets[A]
    loop.consumer.given = {B}
    loop.run(5)
    loop.next_offsets[A] = 5

    loop.run(25)

    assert loop.stalled_for(A) == 20


def test_a_partition_that_is_ours_but_never_served_outlasts_any_rebalance_first(loop):
    del loop.next_offsets[A]
    loop.consumer.at_pause = {A}

    loop.run(90)

    with pytest.raises(PartitionStalledError, match="clicks/0 is given to us but not served"):
        loop.run(10)


def test_a_partition_that_is_served_after_a_long_rebalance_begins_anew(loop):
    del loop.next_offsets[A]
    loop.run(90)

    loop.next_offsets[A] = 5
    loop.run(26)

    assert loop.stalled_for(A) == 25  # the first check falls into its second second


def test_a_rebalance_has_no_end_while_brokers_do_not_answer(loop):
    del loop.next_offsets[A]
    loop.consumer.error = KafkaTimeoutError("x")

    loop.run(600)


def test_a_rejoin_that_has_begun_is_finished(loop):
    loop.run(1)
    loop.consumer._coordinator.rejoining = True
    loop.run(3)

    assert loop.consumer._coordinator.num_requests == 3


def test_brokers_are_asked_once_in_five_seconds(loop):
    loop.next_offsets[A] = 10

    loop.run(60, step=0.05)

    assert 11 <= len(loop.consumer.asked) <= 12
