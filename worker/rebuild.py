"""Make a partition's sessions anew from its clicks, when its changelog cannot be trusted.

It answers nothing and moves no offset; whether a rebuild is wanted is the restorer's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, repeat

import msgspec
import numpy as np
import structlog

from stream import clients
from stream.assignment import membership
from stream.batch import Outcome, Send
from stream.changelog import (
    EXACTLY_ONCE,
    MARKER_KEY,
    UNFINISHED,
    Rebuilt,
    encode_marker,
    read_to_end,
    tombstone_headers,
)
from stream.committer import Committer
from stream.kafka_types import ConsumerRecord, KafkaConsumer, TopicPartition
from stream.positions import first_offsets
from stream.settings import KafkaSettings, TopicSettings
from worker.agreement import Standing
from worker.answering import Answering
from worker.intake import judge_records, outcomes, seat
from worker.ledger import Ledger
from worker.newcomers import Newcomers
from worker.outputs import session_values
from worker.recommender import advance
from worker.restore import GivenUpError
from worker.sessions import Sessions
from worker.settings import SessionSettings
from worker.version import ServingVersion

log = structlog.get_logger(__name__)

_SLICE = 500
_LOG_EVERY_CLICKS = 50_000
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Rebuilder:
    """Apply a partition's clicks again, and write the sessions that they give into the changelog.

    A first marker without offset and a last one with it enclose what is written: a rebuild that was
    cut short disagrees with every committed offset, under both guarantees, and starts over.
    """

    consumer: KafkaConsumer
    committer: Committer
    answering: Answering
    kafka: KafkaSettings
    topics: TopicSettings
    settings: SessionSettings
    guarantee: str

    def rebuild(self, standing: Standing, go_on: Callable[[], bool]) -> None:
        """Write the sessions that the clicks below the committed offset give; forget the old ones.

        1 apply the clicks to sessions of their own, 2 write these between two markers, with
        tombstones for the old ones that are superseded, 3 drop the old ones from memory; the
        restorer reads the new ones back. Raises GivenUpError with `go_on`, and when the group does
        not count this member in any more.
        """
        partition, target = standing.partition, standing.committed
        version = self.answering.version
        fresh = FreshSessions(version, self.settings, self.topics.partitions)
        fresh.ledger = _begun(standing, version.name)
        self._apply(partition, fresh, target, go_on)
        sends = self._sends(partition.partition, fresh)
        while batch := list(islice(sends, _SLICE)):
            self._commit(batch, {partition: target}, go_on)
        self.answering.sessions.drop(partition.partition)
        log.warning(
            "sessions rebuilt from clicks",
            partition=partition.partition,
            clicks=fresh.ledger.seen,
            sessions=len(fresh.sessions),
        )

    def _apply(
        self,
        partition: TopicPartition,
        fresh: FreshSessions,
        target: int,
        go_on: Callable[[], bool],
    ) -> None:
        ledger = fresh.ledger
        reader = clients.reader(self.kafka, client_id=f"{self.kafka.app}-rebuild")
        try:
            first = first_offsets(reader, [partition])[partition]
            if first > ledger.start:
                log.warning(
                    "retention has removed clicks: the rebuilt sessions lack them",
                    partition=partition.partition,
                    clicks=first - ledger.start,
                )
                ledger.start = ledger.next_offset = min(first, target)
            records = read_to_end(reader, {partition: target}, between_slices=go_on)
            due = (record for record in records if record.offset >= ledger.start)
            while batch := list(islice(due, _SLICE)):
                fresh.apply(batch)
                if ledger.seen % _LOG_EVERY_CLICKS < len(batch):
                    log.info("rebuilding", partition=partition.partition, at=ledger.next_offset)
        finally:
            reader.close()
        ledger.next_offset = target

    def _sends(self, partition: int, fresh: FreshSessions) -> Iterator[Send]:
        """Yield a marker without offset, tombstones, sessions, and the marker that ends it."""
        topic, ledger = self.topics.sessions, fresh.ledger
        member = membership(self.consumer)
        generation = member.generation_id if member else -1
        marker = ledger.marker(generation, fresh.version.name, self.guarantee)
        begun = msgspec.structs.replace(marker, next_offset=UNFINISHED)
        yield Send(topic, partition, MARKER_KEY, encode_marker(begun), [])
        for user_id, last_offset in self._superseded(partition, fresh):
            yield Send(topic, partition, user_id.encode(), None, tombstone_headers(last_offset))
        for user_id, value in fresh.records(partition, generation):
            yield Send(topic, partition, user_id.encode(), value, [])
        yield Send(topic, partition, MARKER_KEY, encode_marker(marker), [])

    def _superseded(self, partition: int, fresh: FreshSessions) -> Iterator[tuple[str, int]]:
        """Yield whom the old changelog knows but the new one does not, or less far, and how far.

        The larger last_offset wins when a changelog is read, so one that falls needs a tombstone.
        """
        old, new = self.answering.sessions, fresh.sessions
        known = dict(fresh.evicted)
        for user_id, slot in old.users(partition).items():
            known[user_id] = max(int(old.offset_S[slot]), known.get(user_id, -1))
        for user_id, last_offset in known.items():
            slot = new.find(partition, user_id)
            if slot < 0 or last_offset > new.offset_S[slot]:
                yield user_id, last_offset

    def _commit(
        self, sends: list[Send], offsets: dict[TopicPartition, int], go_on: Callable[[], bool]
    ) -> None:
        """Commit one batch of the changelog; the offsets stay where they are.

        They cannot tell then what became of a batch that failed, so one that made the committer
        renew its producer is sent again: the records are the same.
        """
        for _ in range(_ATTEMPTS):
            go_on()
            member = membership(self.consumer)
            if member is None:
                break
            renewals = self.committer.renewals
            outcome = self.committer.commit(sends, offsets, offsets, member)
            if outcome is Outcome.KEPT and self.committer.renewals == renewals:
                return
        raise GivenUpError


class FreshSessions:
    """Sessions of their own, to which one partition's clicks are applied and none is answered."""

    def __init__(
        self, version: ServingVersion, settings: SessionSettings, num_partitions: int
    ) -> None:
        self.version = version
        self.ledger = Ledger()
        self.evicted: dict[str, int] = {}
        self.sessions = Sessions(version.bundle.encoder.state_dim, max_live=settings.max_live)
        self._newcomers = Newcomers(version.bundle.vectors_ND.shape[1])
        self._code_of = self._newcomers.code_of(version.bundle.catalogue)
        self._item_name = self._newcomers.item_name(version.bundle.catalogue)
        self._settings = settings
        self._num_partitions = num_partitions

    def apply(self, records: list[ConsumerRecord]) -> None:
        """Judge, seat and apply one partition's clicks in log order, as when they are answered."""
        ledgers = {records[0].partition: self.ledger}
        intake = judge_records(
            *(records, ledgers, self.sessions),
            num_partitions=self._num_partitions,
            ttl_ms=int(self._settings.ttl_days * 86_400_000),
        )
        seated = seat(intake, self.sessions, ledgers, self._code_of)
        idle_gap_ms = int(self._settings.idle_gap_minutes * 60_000)
        advance(seated.clicks, self.sessions, self.version, idle_gap_ms)
        for slot in seated.scratch:
            self.sessions.release(slot)
        self.evicted |= {user_id: offset for _, user_id, offset in seated.evicted}
        for record, outcome, reason in outcomes(intake, seated, repeat("")):
            self.ledger.enter(record.offset, outcome, reason)
        self._newcomers.trim(self.sessions.codes_in_use)

    def records(self, partition: int, generation: int) -> Iterator[tuple[str, bytes]]:
        """Yield each user with the changelog value of the session."""
        owners = iter(self.sessions.users(partition).items())
        while some := list(islice(owners, _SLICE)):
            slots_U = np.array([slot for _, slot in some], np.int64)
            values = session_values(
                *(self.sessions, slots_U, self.version, generation, self._item_name)
            )
            yield from zip((user_id for user_id, _ in some), values, strict=True)


def _begun(standing: Standing, version: str) -> Ledger:
    """Return the ledger of a rebuild before its first click."""
    target, marker = standing.committed, standing.marker
    start, number = (marker.start, marker.rebuilds) if marker is not None else (0, 0)
    ledger = Ledger.begun_at(min(start, target), Rebuilt(number + 1, target, version))
    ledger.changelog_start = standing.changelog_start
    exact = marker is not None and marker.guarantee == EXACTLY_ONCE
    if marker is not None and exact and marker.next_offset <= target:
        ledger.exact_from = marker.exact_from
    else:
        # At least once, or nobody knows, or the offset was set back: outcomes may come again.
        ledger.exact_from = max(target, standing.position.end)
    return ledger
