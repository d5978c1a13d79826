"""All that the topics of one application say, by partition number; judges nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stream.changelog import (
    Entry,
    Marker,
    SessionRecord,
    decode,
    reaches_further,
    read_to_end,
)
from stream.dead_letters import parse
from stream.headers import Provenance, provenance
from stream.kafka_types import ConsumerRecord, KafkaConsumer, TopicPartition
from stream.settings import TopicSettings
from worker.replay import Expected, expected_outcomes


class ExpiredEvidenceError(Exception):
    """Retention has removed records without which nothing can be proved; the text says whose."""


@dataclass(frozen=True)
class Partition:
    """All records of one partition number, and how far its group has committed."""

    number: int
    committed: int
    expected: dict[int, Expected]
    answers: list[Provenance]
    dead: list[tuple[int, str]]
    sessions: dict[str, SessionRecord]
    evictions: dict[str, set[int]]
    marker: Marker | None


def read_evidence(
    reader: KafkaConsumer, topics: TopicSettings, committed: dict[int, int | None], *, ttl_ms: int
) -> list[Partition]:
    """Read every topic to its end; `committed` is the workers' offset of every clicks partition.

    Effects are read before their causes, so that a running worker's are not taken for groundless.
    Raises ExpiredEvidenceError when a topic no longer has its first records.
    """
    changelog = _by_partition(reader, topics.sessions)
    answers = _by_partition(reader, topics.recommendations)
    dead = _by_partition(reader, topics.dead_letters)
    clicks = _by_partition(reader, topics.clicks)
    _require_whole(reader, (topics.clicks, topics.recommendations, topics.dead_letters))
    letters = [parse(record) for records in dead.values() for record in records]
    partitions = []
    for number in sorted(committed):
        sessions, evictions, marker = _fold(changelog.get(number, []))
        partitions.append(
            Partition(
                number=number,
                committed=committed[number] or 0,
                expected=expected_outcomes(
                    clicks.get(number, []), num_partitions=len(committed), ttl_ms=ttl_ms
                ),
                answers=[provenance(record.headers) for record in answers.get(number, [])],
                dead=[
                    (letter.offset, letter.reason)
                    for letter in letters
                    if letter.partition == number
                ],
                sessions=sessions,
                evictions=evictions,
                marker=marker,
            )
        )
    return partitions


def _require_whole(reader: KafkaConsumer, names: Iterable[str]) -> None:
    partitions = [TopicPartition(t, n) for t in names for n in reader.partitions_for_topic(t) or ()]
    first = reader.beginning_offsets(partitions, timeout_ms=10_000)
    for tp, offset in sorted(first.items()):
        if offset:
            raise ExpiredEvidenceError(
                f"{tp.topic}/{tp.partition} begins at offset {offset}: retention has removed what "
                "was before, so clicks and sessions cannot be compared with a replay any more"
            )


def _by_partition(reader: KafkaConsumer, topic: str) -> dict[int, list[ConsumerRecord]]:
    partitions = [TopicPartition(topic, n) for n in reader.partitions_for_topic(topic) or ()]
    ends = reader.end_offsets(partitions, timeout_ms=10_000)
    records: dict[int, list[ConsumerRecord]] = {}
    for record in read_to_end(reader, ends, between_slices=lambda: True):
        records.setdefault(record.partition, []).append(record)
    return records


def _fold(
    changelog: list[ConsumerRecord],
) -> tuple[dict[str, SessionRecord], dict[str, set[int]], Marker | None]:
    sessions: dict[str, SessionRecord] = {}
    evictions: dict[str, set[int]] = {}
    marker = None
    for entry in map(decode, changelog):
        if isinstance(entry, Marker):
            marker = entry if reaches_further(entry, marker) else marker
        elif entry.record is None:
            evictions.setdefault(entry.user_id, set()).add(entry.last_offset)
            _forget(sessions, entry)
        else:
            known = sessions.get(entry.user_id)
            if known is None or entry.last_offset >= known.last_offset:
                sessions[entry.user_id] = entry.record
    return sessions, evictions, marker


def _forget(sessions: dict[str, SessionRecord], entry: Entry) -> None:
    known = sessions.get(entry.user_id)
    if known is not None and known.last_offset <= entry.last_offset:
        del sessions[entry.user_id]
