"""Notices that the client has silently stopped fetching a partition; knows no records.

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

log = structlog.get_logger(__name__)

STALL_SECONDS: Final = 30.0
INTERVAL_SECONDS: Final = 5.0
_ANSWER_MS: Final = 1_000
# Brokers away or leaders moving; positions unknown, or revoked while we asked.
_NO_VERDICT: Final = (RetriableError, NoOffsetForPartitionError, IllegalStateError)


class PartitionStalledError(Exception):
    """The client no longer fetches a partition; only a new client helps, so the process ends."""


class _Standing(NamedTuple):
    """A position, and how long it has been there although records wait."""

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
        self._delivered.update(polled)
        self._had_room |= sum(map(len, polled.values())) < self._max_records
        if self._checked_at is None:
            self._checked_at = now
        elapsed = now - self._checked_at
        if elapsed < self._interval_seconds:
            return
        # A longer pause was a restore or a slow batch: nobody polled meanwhile.
        polling = self._had_room and elapsed <= 2 * self._interval_seconds
        silent = next_offsets.keys() - self._delivered - self._consumer.paused()
        seconds = elapsed if polling and self._answered else 0.0
        standing = self._measure(silent, next_offsets, seconds)
        self._answered = standing is not None
        if standing is None:
            kept = self._standing.keys() & silent
            standing = {tp: self._standing[tp] for tp in kept}
        self._standing = standing
        self._checked_at, self._had_room, self._delivered = now, False, set()
        self._report(next_offsets)

    def _measure(
        self,
        silent: Collection[TopicPartition],
        next_offsets: Mapping[TopicPartition, int],
        seconds: float,
    ) -> dict[TopicPartition, _Standing] | None:
        """Return the partitions where records wait, `seconds` later; None without an answer."""
        try:
            ends = self._consumer.end_offsets(silent, timeout_ms=_ANSWER_MS) if silent else {}
            behind = [tp for tp in silent if next_offsets[tp] < ends[tp]]
            positions = {tp: self._consumer.position(tp, timeout_ms=_ANSWER_MS) for tp in behind}
        except _NO_VERDICT:
            return None
        standing = {}
        for tp, at in positions.items():
            position = max(at or 0, next_offsets[tp])
            if position < ends[tp]:
                before = self._standing.get(tp, _Standing(-1, 0.0))
                waited = before.seconds + seconds if before.position == position else 0.0
                standing[tp] = _Standing(position, waited)
        return standing

    def _report(self, partitions: Collection[TopicPartition]) -> None:
        """Show how long each partition stands still; raise for the first that does too long."""
        for tp in partitions:
            seconds = self._standing[tp].seconds if tp in self._standing else 0.0
            self._gauge.labels(tp.topic, tp.partition).set(seconds)
        for tp, (position, seconds) in self._standing.items():
            if seconds >= self._stall_seconds:
                place = f"{tp.topic}/{tp.partition}"
                log.critical("partition stalled, exiting", partition=place, position=position)
                raise PartitionStalledError(
                    f"{place} stands at offset {position} for {seconds:.0f} s although records "
                    "wait there: the client has stopped fetching it, a new process starts a new one"
                )
