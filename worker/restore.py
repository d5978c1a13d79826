"""Bring back the sessions of newly assigned partitions, and compare them with their offsets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, Protocol

import numpy as np
import structlog

from stream import clients
from stream.changelog import (
    Entry,
    Marker,
    StateMismatchError,
    decode,
    reaches_further,
    read_to_end,
)
from stream.kafka_types import TopicPartition
from stream.positions import Position, end_offsets, first_offsets
from stream.settings import KafkaSettings
from worker.agreement import Standing
from worker.ledger import Ledger
from worker.newcomers import Newcomers
from worker.sessions import Sessions
from worker.version import ServingVersion

log = structlog.get_logger(__name__)
OnMismatch = Literal["halt", "accept", "rebuild"]


class GivenUpError(Exception):
    """The partitions went away, or the worker stops: what was read so far is to be dropped."""


class Rebuild(Protocol):
    """Makes a partition's sessions anew from its clicks, in the changelog (`worker/rebuild.py`)."""

    def rebuild(self, standing: Standing, go_on: Callable[[], bool]) -> None:
        """Write the sessions that the clicks below the committed offset give."""


class Restorer:
    """Read changelogs to their high watermarks; bounded by progress, not by size.

    `on_mismatch` says what to do when a partition's marker and its committed offset disagree: halt,
    accept the changelog as it is, or rebuild it.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        client_id: str,
        *,
        on_mismatch: OnMismatch = "halt",
        rebuilder: Rebuild | None = None,
    ) -> None:
        self._kafka = kafka
        self._topic = topic
        self._client_id = client_id
        self._on_mismatch = on_mismatch
        self._rebuilder = rebuilder

    def restore(
        self,
        positions: dict[TopicPartition, Position],
        place: Callable[[Entry], None],
        *,
        between_slices: Callable[[], bool],
        unmoved: Callable[[], bool],
    ) -> dict[int, Ledger] | None:
        """Return the ledger of every partition whose sessions are back; None when given up.

        1 read the changelogs, 2 compare each marker with the committed offset, 3 rebuild what
        disagrees if that is wanted, and read it again. `between_slices` returns False to give up,
        `unmoved` when the positions are out of date: a process that was frozen after it had asked
        for them may read here what another member has written since.
        Raises StateMismatchError when they disagree and `on_mismatch` is halt, ChangelogError when
        the end is not reached.
        """

        def go_on() -> bool:
            if not between_slices():
                raise GivenUpError
            return True

        try:
            found = self._read(positions, place, go_on)
            wrong = {tp: positions[tp] for tp, standing in found.items() if not standing.agrees}
            if wrong and not unmoved():
                return None
            if wrong and self._on_mismatch == "rebuild" and self._rebuilder is not None:
                for tp in wrong:
                    self._rebuilder.rebuild(found[tp], go_on)
                found |= self._read(wrong, place, go_on)
        except GivenUpError:
            return None
        return {tp.partition: self._ledger(standing) for tp, standing in found.items()}

    def _read(
        self,
        positions: dict[TopicPartition, Position],
        place: Callable[[Entry], None],
        go_on: Callable[[], bool],
    ) -> dict[TopicPartition, Standing]:
        """Place every session, and return where each clicks partition stands.

        The end is the high watermark as a read_uncommitted reader sees it, taken after the
        committed offsets, so that nothing that a commit covers is missed. The larger last_offset
        wins, and the marker that reaches furthest, under both guarantees: of transactions that is
        the last one, and a worker that stalled without them may have appended older ones late.
        """
        logs = {tp: TopicPartition(self._topic, tp.partition) for tp in positions}
        markers: dict[int, Marker] = {}
        ends = self._high_watermarks(logs.values())
        reader = clients.reader(self._kafka, client_id=f"{self._client_id}-restore")
        try:
            starts = first_offsets(reader, logs.values())
            for message in read_to_end(reader, ends, between_slices=go_on):
                entry = decode(message)
                if not isinstance(entry, Marker):
                    place(entry)
                elif reaches_further(entry, markers.get(message.partition)):
                    markers[message.partition] = entry
        finally:
            reader.close()
        return {
            tp: Standing(tp, position, markers.get(tp.partition), starts[logs[tp]])
            for tp, position in positions.items()
        }

    def _high_watermarks(self, logs: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        reader = clients.reader(
            self._kafka, client_id=f"{self._client_id}-ends", isolation="read_uncommitted"
        )
        try:
            return end_offsets(reader, logs)
        finally:
            reader.close()

    def _ledger(self, standing: Standing) -> Ledger:
        position, marker = standing.position, standing.marker
        if not standing.agrees and self._on_mismatch != "accept":
            raise StateMismatchError(f"{standing.difference}. {standing.ways_out}")
        elsewhere = marker is not None and marker.next_offset != position.offset
        if marker is None or marker.unfinished or (standing.is_first_start and elsewhere):
            ledger = Ledger.begun_at(position.offset, marker.rebuilt if marker else None)
            ledger.changelog_start = standing.changelog_start
        else:
            ledger = Ledger.restored(marker, position.end)
            ledger.resume(position.offset)
        ledger.on_record &= position.committed
        if not standing.agrees:
            ledger.on_record = False
            ledger.exact_from = max(ledger.exact_from, position.end)
            ledger.changelog_start = standing.changelog_start
            lost = ledger.lost - (marker.lost if marker else 0)
            log.error("mismatch accepted", what=standing.difference, clicks_lost=lost)
        return ledger


def place_session(
    sessions: Sessions, entry: Entry, version: ServingVersion, newcomers: Newcomers
) -> None:
    """Put one changelog entry into the slabs, unless a newer one is there already.

    States of another version, or of another size, are marked to be re-encoded at the next click.
    More users than `max_live` are taken in here: only the next batch can evict with a tombstone.
    """
    slot = sessions.find(entry.partition, entry.user_id)
    if slot >= 0 and sessions.offset_S[slot] > entry.last_offset:
        return
    if slot >= 0:
        sessions.remove(entry.partition, entry.user_id)
    record = entry.record
    if record is None:
        return
    slot = sessions.create(entry.partition, entry.user_id)
    rows = version.bundle.catalogue.rows(record.items).tolist()
    codes = [
        row if row >= 0 else newcomers.code(item)
        for row, item in zip(rows, record.items, strict=True)
    ]
    sessions.set_ring(slot, codes, record.length)
    hidden_H = np.frombuffer(record.hidden, "<f4")
    if record.version == version.name and len(hidden_H) == sessions.hidden_SH.shape[1]:
        sessions.hidden_SH[slot] = hidden_H
        sessions.version_S[slot] = version.number
    sessions.time_S[slot] = record.updated_at
    sessions.offset_S[slot] = record.last_offset
    sessions.n_S[slot] = record.n
    sessions.digest_S[slot] = record.digest
    sessions.session_hash_S[slot] = record.session_hash
    sessions.events_SE[slot] = np.frombuffer(record.event_hashes, "<u8")
