"""Notices that the client has silently stopped fetching or joining; knows no records.

watch = ProgressWatch(consumer, metrics.stalled_seconds, max_records=500)  # once
watch.check(polled, next_offsets, time.monotonic())                        # after every round
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sized
from typing import Final, NamedTuple

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import IllegalStateError, NoOffsetForPartitionError, RetriableError
from prometheus_client import Gauge

from stream.positions import look_for_leaders
from stream.rejoin import finish_rejoin

log = structlog.get_logger(__name__)

STALL_SECONDS: Final = 30.0
INTERVAL_SECONDS: Final = 5.0
_ANSWER_MS: Final = 1_000
_UNSERVED: Final = -1
# Brokers away or leaders moving; positions unknown, or revoked while we asked.
_NO_VERDICT: Final = (RetriableError, NoOffsetForPartitionError, IllegalStateError)


class PartitionStalledError(Exception):
    """A partition is not served any more; only a new client helps, so the process ends."""


class _Standing(NamedTuple):
    """A position where records wait, or UNSERVED, and how long that has not changed."""

    position: int
    seconds: float


class ProgressWatch:
    """Raises PartitionStalledError when records wait in a partition and none comes.

    kafka-python has stopped fetching partitions without an error (#3106, #3131), and what it then
    believes of the log's end stands still as well, so the broker is asked: every few seconds at
    most, and only for partitions that delivered nothing since. A partition's time counts only when

    - it is not paused, and its position is behind the end that a reader of committed records sees
      and does not move (it passes transaction markers and aborted records),
    - some poll had room for more records, else it may only wait its turn in the client's buffer,
    - the brokers answer; while they do not, there is no verdict.

    A partition that the group gave and that is not live either is a rebalance without end: it may
    take the longest pause between polls of any member, then the same error. The rejoins that the
    client is known to forget are finished here (`finish_rejoin`).
    """

    def __init__(
        self,
        consumer: KafkaConsumer,
        gauge: Gauge,
        *,
        max_records: int,
        stall_seconds: float = STALL_SECONDS,
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        self._consumer = consumer
        self._gauge = gauge
        self._max_records = max_records
        self._stall_seconds = stall_seconds
        self._rebalance_seconds = stall_seconds + consumer.config["max_poll_interval_ms"] / 1000
        self._interval_seconds = interval_seconds
        self._checked_at: float | None = None
        self._answered = False
        self._had_room = False
        self._delivered: set[TopicPartition] = set()
        self._standing: dict[TopicPartition, _Standing] = {}

    def check(
        self,
        polled: Mapping[TopicPartition, Sized],
        next_offsets: Mapping[TopicPartition, int],
        now: float,
    ) -> None:
        """Take note of a round: what it polled, and the next offset of every live partition.

        `now` is monotonic seconds. Blocks for up to a second per interval when brokers are slow.
        """
        finish_rejoin(self._consumer)
        self._delivered.update(polled)
        self._had_room |= sum(map(len, polled.values())) < self._max_records
        if self._checked_at is None:
            self._checked_at = now
        elapsed = now - self._checked_at
        if elapsed < self._interval_seconds:
            return
        # A longer pause was a restore or a slow batch: nobody polled meanwhile.
        polling = self._had_room and elapsed <= 2 * self._interval_seconds
        seconds = elapsed if polling and self._answered else 0.0
        self._measure(self._suspects(next_offsets), next_offsets, seconds)
        self._checked_at, self._had_room, self._delivered = now, False, set()
        self._report(next_offsets)

    def _suspects(self, live: Mapping[TopicPartition, int]) -> set[TopicPartition]:
        """Return the partitions that are live but delivered nothing, or ours but not live."""
        silent = live.keys() - self._delivered - self._consumer.paused()
        return silent | (self._consumer.assignment() - live.keys())

    def _measure(
        self,
        suspects: Collection[TopicPartition],
        next_offsets: Mapping[TopicPartition, int],
        seconds: float,
    ) -> None:
        """Keep of `suspects` those where records wait, `seconds` longer if at the same position."""
        standing = {}
        try:
            ends = self._consumer.end_offsets(suspects, timeout_ms=_ANSWER_MS) if suspects else {}
            for tp in suspects:
                position = self._position(tp, next_offsets.get(tp, _UNSERVED), ends[tp])
                if position < ends[tp]:
                    before = self._standing.get(tp, _Standing(position, -seconds))
                    waited = before.seconds + seconds if before.position == position else 0.0
                    standing[tp] = _Standing(position, waited)
        except _NO_VERDICT:
            standing = {tp: self._standing[tp] for tp in self._standing.keys() & suspects}
            self._answered = False
            look_for_leaders(self._consumer)
        else:
            self._answered = True
        self._standing = standing

    def _position(self, tp: TopicPartition, next_offset: int, end: int) -> int:
        if next_offset == _UNSERVED or next_offset >= end:
            return next_offset
        return max(next_offset, self._consumer.position(tp, timeout_ms=_ANSWER_MS) or 0)

    def _report(self, live: Collection[TopicPartition]) -> None:
        """Show how long each partition stands still; raise for the first that does too long."""
        for tp in live:
            seconds = self._standing[tp].seconds if tp in self._standing else 0.0
            self._gauge.labels(tp.topic, tp.partition).set(seconds)
        for tp, (position, seconds) in self._standing.items():
            unserved = position == _UNSERVED
            if seconds >= (self._rebalance_seconds if unserved else self._stall_seconds):
                place = f"{tp.topic}/{tp.partition}"
                log.critical("partition stalled, exiting", partition=place, position=position)
                what = "is given to us but not served" if unserved else f"stands at {position}"
                raise PartitionStalledError(
                    f"{place} {what} for {seconds:.0f} s although the brokers answer: the client "
                    "hangs, and only a new process starts a new one"
                )
