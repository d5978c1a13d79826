"""Bring back the sessions of newly assigned partitions, and compare them with their offsets."""

from __future__ import annotations

from collections.abc import Callable, Collection
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
from stream.positions import Position, end_offsets
from stream.settings import KafkaSettings
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

    def rebuild(
        self,
        partition: TopicPartition,
        position: Position,
        marker: Marker | None,
        go_on: Callable[[], bool],
    ) -> None:
        """Write the sessions that the clicks below `position` give, and forget the old ones."""


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
    ) -> dict[int, Ledger] | None:
        """Return the ledger of every partition whose sessions are back; None when given up.

        1 read the changelogs, 2 compare each marker with the committed offset, 3 rebuild what
        disagrees if that is wanted, and read it again. `between_slices` returns False to give up.
        Raises StateMismatchError when they disagree and `on_mismatch` is halt, ChangelogError when
        the end is not reached.
        """

        def go_on() -> bool:
            if not between_slices():
                raise GivenUpError
            return True

        try:
            markers = self._read(positions, place, go_on)
            if self._on_mismatch == "rebuild" and self._rebuilder is not None:
                wrong = [tp for tp, p in positions.items() if not _agree(p, markers.get(tp))]
                for tp in wrong:
                    self._rebuilder.rebuild(tp, positions[tp], markers.get(tp), go_on)
                markers |= self._read(wrong, place, go_on)
        except GivenUpError:
            return None
        return {tp.partition: self._ledger(tp, p, markers.get(tp)) for tp, p in positions.items()}

    def _read(
        self,
        partitions: Collection[TopicPartition],
        place: Callable[[Entry], None],
        go_on: Callable[[], bool],
    ) -> dict[TopicPartition, Marker]:
        """Place every session, and return the marker of each clicks partition.

        The end is the high watermark as a read_uncommitted reader sees it, taken after the
        committed offsets, so that nothing that a commit covers is missed. The larger last_offset
        wins, and the marker that reaches furthest, under both guarantees: of transactions that is
        the last one, and a worker that stalled without them may have appended older ones late.
        """
        if not partitions:
            return {}
        markers: dict[TopicPartition, Marker] = {}
        clicks = {tp.partition: tp for tp in partitions}
        ends = self._high_watermarks(clicks)
        reader = clients.reader(self._kafka, client_id=f"{self._client_id}-restore")
        try:
            for message in read_to_end(reader, ends, between_slices=go_on):
                entry = decode(message)
                tp = clicks[message.partition]
                if not isinstance(entry, Marker):
                    place(entry)
                elif reaches_further(entry, markers.get(tp)):
                    markers[tp] = entry
        finally:
            reader.close()
        return markers

    def _high_watermarks(self, numbers: Collection[int]) -> dict[TopicPartition, int]:
        partitions = [TopicPartition(self._topic, number) for number in numbers]
        reader = clients.reader(
            self._kafka, client_id=f"{self._client_id}-ends", isolation="read_uncommitted"
        )
        try:
            return end_offsets(reader, partitions)
        finally:
            reader.close()

    def _ledger(self, tp: TopicPartition, position: Position, marker: Marker | None) -> Ledger:
        agreed = _agree(position, marker)
        if not agreed and self._on_mismatch != "accept":
            raise StateMismatchError(_mismatch(tp, position, marker))
        if _is_first_start(position, marker) or marker is None or marker.unfinished:
            ledger = Ledger.begun_at(position.offset, marker.rebuilt if marker else None)
        else:
            ledger = Ledger.restored(marker, position.end)
            ledger.resume(position.offset)
        if not agreed:
            ledger.on_record = False
            ledger.exact_from = max(ledger.exact_from, position.end)
            log.error(
                "mismatch accepted",
                what=_difference(tp, position, marker),
                clicks_lost=ledger.lost - (marker.lost if marker else 0),
            )
        return ledger


def _agree(position: Position, marker: Marker | None) -> bool:
    if position.committed:
        return marker is not None and marker.agrees_with(position.offset - position.gap)
    return _is_first_start(position, marker) or (
        marker is not None and marker.next_offset == position.offset
    )


def _is_first_start(position: Position, marker: Marker | None) -> bool:
    # A first start writes a marker without clicks, then commits its offset.
    begun = marker is not None and (marker.seen or marker.unfinished)
    return not position.committed and not begun


def _difference(tp: TopicPartition, position: Position, marker: Marker | None) -> str:
    place = f"{tp.topic}/{tp.partition}"
    committed = f"committed offset {position.offset - position.gap}"
    if not position.committed:
        committed = "its consumer group has no committed offset"
    if marker is None:
        return f"{place}: {committed}, but there is no changelog of its sessions"
    if marker.unfinished:
        return f"{place}: {committed}, but a rebuild of its sessions was not finished"
    return f"{place}: {committed}, but its sessions reach up to {marker.next_offset}"


def _mismatch(tp: TopicPartition, position: Position, marker: Marker | None) -> str:
    return (
        f"{_difference(tp, position, marker)}. The changelog was deleted or cut, or the offsets "
        "were moved. Set the group's offset to where the sessions are, or start `nextclick worker` "
        "once with --rebuild-from-events to make the sessions anew from the clicks, or with "
        "--accept-mismatch to go on with the sessions as they are"
    )


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
