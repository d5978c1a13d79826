"""All that the topics of one application say, one partition number at a time; judges nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from stream.changelog import (
    EXACTLY_ONCE,
    Entry,
    Marker,
    Rebuilt,
    SessionRecord,
    decode,
    reaches_further,
    read_to_end,
)
from stream.dead_letters import parse
from stream.headers import provenance
from stream.kafka_types import ConsumerRecord, KafkaConsumer, TopicPartition
from stream.positions import end_offsets, first_offsets
from stream.settings import TopicSettings
from worker.replay import Expected, expected_outcomes


class ExpiredEvidenceError(Exception):
    """Retention has removed records without which nothing can be proved; the text says whose."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a recommendation says of its origin; small, because there is one for each click."""

    offset: int
    generation: int
    model: str
    n: int
    digest: int
    replayed: bool


@dataclass(frozen=True)
class Partition:
    """All records of one partition number, and how far its group has committed.

    `misplaced` counts answers that name a click of another partition.
    """

    number: int
    committed: int
    expected: dict[int, Expected]
    answers: list[Answer]
    dead: list[tuple[int, str]]
    sessions: dict[str, SessionRecord]
    evictions: dict[str, set[int]]
    marker: Marker | None
    misplaced: int = 0

    @property
    def start(self) -> int:
        """Offset of the first click that the ledger counts."""
        return self.marker.start if self.marker is not None else 0

    @property
    def exact_from(self) -> int | None:
        """Offset from which on every outcome must be there once; None when it may be repeated."""
        if self.marker is None or self.marker.guarantee != EXACTLY_ONCE:
            return None
        return self.marker.exact_from

    @property
    def rebuilt(self) -> Rebuilt | None:
        """The last rebuild of the sessions from their clicks."""
        return self.marker.rebuilt if self.marker is not None else None


class Evidence:
    """Reads the topics of one application to their ends.

    `ends` is a read_uncommitted reader: what a commit covers may still wait for its transaction's
    last word, and is waited for.
    """

    def __init__(
        self,
        reader: KafkaConsumer,
        ends: KafkaConsumer,
        topics: TopicSettings,
        *,
        ttl_days: float,
    ) -> None:
        self._reader = reader
        self._ends = ends
        self._topics = topics
        self._ttl_ms = int(ttl_days * 86_400_000)

    def partitions(self, committed: dict[int, int | None]) -> Iterator[Partition]:
        """Yield one partition after the other; `committed` is the workers' offset of each.

        Effects are read before their causes, so that a running worker's are not taken for
        groundless. Raises ExpiredEvidenceError when a topic no longer has its first records.
        """
        topics = self._topics
        for number in sorted(committed):
            sessions, evictions, marker = _fold(self._records(topics.sessions, number))
            answers, misplaced = _answers(
                self._records(topics.recommendations, number), (topics.clicks, number)
            )
            letters = map(parse, self._records(topics.dead_letters, number))
            dead = [(letter.offset, letter.reason) for letter in letters]
            clicks = self._records(topics.clicks, number)
            expected = expected_outcomes(clicks, num_partitions=len(committed), ttl_ms=self._ttl_ms)
            self._require_whole(number)
            yield Partition(
                number=number,
                committed=committed[number] or 0,
                expected=expected,
                answers=answers,
                misplaced=misplaced,
                dead=dead,
                sessions=sessions,
                evictions=evictions,
                marker=marker,
            )

    def _records(self, topic: str, number: int) -> Iterator[ConsumerRecord]:
        ends = end_offsets(self._ends, [TopicPartition(topic, number)])
        return read_to_end(self._reader, ends, between_slices=lambda: True)

    def _require_whole(self, number: int) -> None:
        topics = self._topics
        names = (topics.clicks, topics.recommendations, topics.dead_letters)
        partitions = [TopicPartition(name, number) for name in names]
        for tp, first in first_offsets(self._reader, partitions).items():
            if first:
                raise ExpiredEvidenceError(
                    f"{tp.topic}/{number} begins at offset {first}: retention has removed what "
                    "was before, so clicks and sessions cannot be compared with a replay any more"
                )


def _answers(
    records: Iterable[ConsumerRecord], source: tuple[str, int]
) -> tuple[list[Answer], int]:
    answers = []
    misplaced = 0
    models: dict[str, str] = {}
    for record in records:
        origin = provenance(record.headers)
        if (origin.topic, origin.partition) != source:
            misplaced += 1
            continue
        model = models.setdefault(origin.model, origin.model)
        answers.append(
            Answer(
                *(origin.offset, origin.generation, model),
                *(origin.n, origin.digest, origin.replayed),
            )
        )
    return answers, misplaced


def _fold(
    changelog: Iterable[ConsumerRecord],
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
            # A session that is not ahead of a tombstone was rebuilt: nobody was evicted.
            gone = evictions.get(entry.user_id)
            if gone:
                evictions[entry.user_id] = {o for o in gone if o < entry.last_offset}
            known = sessions.get(entry.user_id)
            if known is None or entry.last_offset >= known.last_offset:
                sessions[entry.user_id] = entry.record
    return sessions, evictions, marker


def _forget(sessions: dict[str, SessionRecord], entry: Entry) -> None:
    known = sessions.get(entry.user_id)
    if known is not None and known.last_offset <= entry.last_offset:
        del sessions[entry.user_id]
