"""Where a partition starts: its committed offset, or the start policy when there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError
from kafka.structs import OffsetAndMetadata

log = structlog.get_logger(__name__)

StartFrom = Literal["earliest", "latest"]
OnGap = Literal["halt", "continue"]

_TRY_MS = 1000


class OffsetGapError(Exception):
    """Clicks between the committed offset and the log's start were deleted unanswered."""


class Position(NamedTuple):
    """First offset to read, whether the group had committed one, and how many clicks are lost.

    `end` is where the log ended when it was asked: whoever held the partition before has read no
    further.
    """

    offset: int
    committed: bool
    gap: int
    end: int


def first_offsets(
    consumer: KafkaConsumer, partitions: Iterable[TopicPartition], *, timeout_ms: int = 10_000
) -> dict[TopicPartition, int]:
    """Return where each partition's log begins; raises KafkaTimeoutError."""
    return _ask_each(consumer, consumer.beginning_offsets, partitions, timeout_ms)


def end_offsets(
    consumer: KafkaConsumer, partitions: Iterable[TopicPartition], *, timeout_ms: int = 10_000
) -> dict[TopicPartition, int]:
    """Return where each partition's log ends for the consumer's isolation level."""
    return _ask_each(consumer, consumer.end_offsets, partitions, timeout_ms)


def look_for_leaders(consumer: KafkaConsumer) -> None:
    """Have the client ask, in the background, which broker leads each partition.

    Asked for an offset, a broker that has lost a partition says so; the client asks it again, at
    once and until its time is up, and never looks for the new leader (D17).
    """
    consumer._cluster.request_update()  # type: ignore[attr-defined]  # not in the stubs


def _ask_each(
    consumer: KafkaConsumer,
    question: Callable[..., dict[TopicPartition, int]],
    partitions: Iterable[TopicPartition],
    timeout_ms: int,
) -> dict[TopicPartition, int]:
    """Ask about one partition at a time: of several, those without a known leader are left out."""
    return {tp: _ask(consumer, question, tp, timeout_ms) for tp in partitions}


def _ask(
    consumer: KafkaConsumer,
    question: Callable[..., dict[TopicPartition, int]],
    tp: TopicPartition,
    timeout_ms: int,
) -> int:
    deadline = time.monotonic() + timeout_ms / 1000
    while True:
        try:
            return question([tp], timeout_ms=min(_TRY_MS, timeout_ms))[tp]
        except KafkaTimeoutError:
            if time.monotonic() >= deadline:
                raise
            look_for_leaders(consumer)


def starting_positions(
    consumer: KafkaConsumer,
    partitions: Iterable[TopicPartition],
    *,
    start_from: StartFrom,
    on_gap: OnGap,
    timeout_ms: int = 10_000,
) -> dict[TopicPartition, Position]:
    """Return where each partition starts; never resets silently.

    `committed()` waits while a transaction on the offset is pending (require_stable). Raises
    OffsetGapError when clicks were deleted before they were answered and `on_gap` is halt, and when
    the log ends below the committed offset: it is not the log that the group has read.
    """
    wanted = sorted(partitions)
    committed = {tp: consumer.committed(tp, timeout_ms=timeout_ms) for tp in wanted}
    first = first_offsets(consumer, wanted, timeout_ms=timeout_ms)
    end = end_offsets(consumer, wanted, timeout_ms=timeout_ms)
    positions = {}
    for tp in wanted:
        offset = committed[tp]
        if offset is None:
            start = first[tp] if start_from == "earliest" else end[tp]
            positions[tp] = Position(start, committed=False, gap=0, end=end[tp])
        else:
            gap = _gap(tp, offset, first[tp], end[tp], on_gap)
            positions[tp] = Position(offset + gap, committed=True, gap=gap, end=end[tp])
    return positions


def _gap(tp: TopicPartition, offset: int, first: int, end: int, on_gap: OnGap) -> int:
    """Return how many clicks from the committed `offset` on were deleted unanswered."""
    if offset > end:
        raise OffsetGapError(
            f"{tp.topic}/{tp.partition} ends at {end}, below the committed {offset}: it was "
            "deleted or cut. Delete the group's offsets and the changelog to start anew"
        )
    gap = max(0, first - offset)
    if gap and on_gap == "halt":
        raise OffsetGapError(
            f"{gap} clicks of {tp.topic}/{tp.partition} were deleted before they were answered "
            f"(committed {offset}, log starts at {first}); set worker.on_gap to continue, or "
            "reset the group's offsets"
        )
    if gap:
        log.error("clicks lost", topic=tp.topic, partition=tp.partition, clicks=gap)
    return gap


def as_commit(offsets: dict[TopicPartition, int]) -> dict[TopicPartition, OffsetAndMetadata]:
    """Return plain offsets in the form that `KafkaConsumer.commit` takes."""
    return {tp: OffsetAndMetadata(offset, "", -1) for tp, offset in offsets.items()}
