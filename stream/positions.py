"""Where a partition starts: its committed offset, or the start policy when there is none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

log = structlog.get_logger(__name__)

StartFrom = Literal["earliest", "latest"]
OnGap = Literal["halt", "continue"]


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
    """Return where each partition's log begins; raises KafkaTimeoutError.

    One question for each: of several, the client leaves out those whose leader it does not know.
    """
    return {tp: consumer.beginning_offsets([tp], timeout_ms=timeout_ms)[tp] for tp in partitions}


def end_offsets(
    consumer: KafkaConsumer, partitions: Iterable[TopicPartition], *, timeout_ms: int = 10_000
) -> dict[TopicPartition, int]:
    """Return where each partition's log ends for the consumer's isolation level."""
    return {tp: consumer.end_offsets([tp], timeout_ms=timeout_ms)[tp] for tp in partitions}


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
