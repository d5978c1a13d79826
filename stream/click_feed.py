"""Reads all partitions of the clicks topic from given offsets; knows no session and no model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from stream.decoding import DecodeError
from stream.headers import click_body
from stream.messages import ClickEvent, decode_click
from stream.positions import as_commit, end_offsets, first_offsets
from stream.validation import judge

log = structlog.get_logger(__name__)

_TIMEOUT_MS = 10_000


class Reading(NamedTuple):
    """One record: its click and time, or the reason why there is none."""

    click: ClickEvent | None
    time_ms: int
    reason: str


class ClickFeed:
    """A single reader of the whole topic whose offsets its owner keeps.

    Offsets are also committed to the group, only so that lag can be seen from outside.
    """

    def __init__(self, consumer: KafkaConsumer, topic: str, *, ttl_ms: int) -> None:
        self._consumer = consumer
        self.topic = topic
        self._ttl_ms = ttl_ms
        self._log_time_ms: dict[int, int] = {}
        self.next_offsets: dict[int, int] = {}
        self.lost = 0

    def start(
        self, offsets: Mapping[int, int], *, start_from: Literal["earliest", "latest"]
    ) -> None:
        """Take all partitions; those without an offset begin where `start_from` says.

        An offset outside the log counts the clicks in between as lost and goes on at the edge.
        Raises KafkaError when the topic cannot be read.
        """
        partitions = self._consumer.partitions_for_topic(self.topic)
        if not partitions:
            raise KafkaError(f"topic {self.topic} does not exist: run `nextclick topics ensure`")
        wanted = [TopicPartition(self.topic, number) for number in sorted(partitions)]
        first = first_offsets(self._consumer, wanted)
        end = end_offsets(self._consumer, wanted)
        self._consumer.assign(wanted)
        for tp in wanted:
            default = first[tp] if start_from == "earliest" else end[tp]
            offset = offsets.get(tp.partition, default)
            self._seek(tp, self._within(tp, offset, first[tp], end[tp]))

    def poll(self, *, timeout_ms: int) -> Iterator[Reading]:
        """Yield what the next poll returns; `next_offsets` moves with each record."""
        try:
            batch = self._consumer.poll(timeout_ms=timeout_ms)
        except OffsetOutOfRangeError:
            log.error("position is outside the log", offsets=self.next_offsets)
            self.start(self.next_offsets, start_from="earliest")
            return
        for tp, records in batch.items():
            for record in records:
                log_time_ms = max(self._log_time_ms.get(tp.partition, 0), record.timestamp)
                self._log_time_ms[tp.partition] = log_time_ms
                yield self._read(record.value, record.headers, log_time_ms)
                self.next_offsets[tp.partition] = record.offset + 1

    def commit(self) -> None:
        """Show the offsets to whoever watches the group's lag; a failure only delays that."""
        offsets = {
            TopicPartition(self.topic, number): offset
            for number, offset in self.next_offsets.items()
        }
        try:
            self._consumer.commit(as_commit(offsets), timeout_ms=_TIMEOUT_MS)
        except KafkaError as error:
            log.warning("lag is not shown", error=repr(error))

    def lag(self) -> dict[int, int]:
        """Return the clicks behind each partition's end, as of the last fetches."""
        lags = {}
        for number, offset in self.next_offsets.items():
            end = self._consumer.highwater(TopicPartition(self.topic, number))
            lags[number] = max(0, (end or offset) - offset)
        return lags

    def close(self) -> None:
        """Release the connection."""
        self._consumer.close()

    def _within(self, tp: TopicPartition, offset: int, first: int, end: int) -> int:
        inside = min(max(offset, first), end)
        if inside != offset:
            self.lost += abs(inside - offset)
            log.error(
                "clicks between the last offset and the log are gone",
                topic=tp.topic,
                partition=tp.partition,
                offset=offset,
                continues_at=inside,
            )
        return inside

    def _seek(self, tp: TopicPartition, offset: int) -> None:
        self._consumer.seek(tp, offset)
        self.next_offsets[tp.partition] = offset

    def _read(
        self, value: bytes | None, headers: list[tuple[str, bytes]], log_time_ms: int
    ) -> Reading:
        try:
            click = decode_click(click_body(value, headers) if headers else value)
        except DecodeError as error:
            return Reading(None, log_time_ms, error.reason)
        verdict = judge(click, log_time_ms, ttl_ms=self._ttl_ms)
        if isinstance(verdict, str):
            return Reading(None, log_time_ms, verdict)
        return Reading(click, verdict, "")
