"""Bring back the sessions of newly assigned partitions from the changelog."""

from __future__ import annotations

from collections.abc import Callable, Iterable

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
from stream.positions import Position
from stream.settings import KafkaSettings
from worker.ledger import Ledger
from worker.newcomers import Newcomers
from worker.sessions import Sessions
from worker.version import ServingVersion

log = structlog.get_logger(__name__)


class Restorer:
    """Read changelogs to their high watermarks; bounded by progress, not by size."""

    def __init__(self, kafka: KafkaSettings, topic: str, client_id: str) -> None:
        self._kafka = kafka
        self._topic = topic
        self._client_id = client_id

    def restore(
        self,
        positions: dict[TopicPartition, Position],
        place: Callable[[Entry], None],
        *,
        between_slices: Callable[[], bool],
    ) -> dict[int, Ledger] | None:
        """Return the ledger of every partition whose sessions are back; None when given up.

        The end is the high watermark as a read_uncommitted reader sees it, taken after the
        committed offsets, so that nothing that a commit covers is missed. Records come in any order
        of batches: the larger last_offset wins, and the marker that reaches furthest, since a
        stalled worker may have appended older ones late. `between_slices` returns False to give up.
        Raises StateMismatchError when the marker lies below the committed offset, ChangelogError
        when the end is not reached.
        """
        ends = self._high_watermarks(tp.partition for tp in positions)
        markers: dict[int, Marker] = {}
        wanted = True

        def go_on() -> bool:
            nonlocal wanted
            wanted = between_slices()
            return wanted

        reader = clients.reader(self._kafka, client_id=f"{self._client_id}-restore")
        try:
            for message in read_to_end(reader, ends, between_slices=go_on):
                entry = decode(message)
                if not isinstance(entry, Marker):
                    place(entry)
                elif reaches_further(entry, markers.get(message.partition)):
                    markers[message.partition] = entry
        finally:
            reader.close()
        if not wanted:
            return None
        return {
            tp.partition: _ledger(tp, p, markers.get(tp.partition)) for tp, p in positions.items()
        }

    def _high_watermarks(self, numbers: Iterable[int]) -> dict[TopicPartition, int]:
        partitions = [TopicPartition(self._topic, number) for number in numbers]
        reader = clients.reader(
            self._kafka, client_id=f"{self._client_id}-ends", isolation="read_uncommitted"
        )
        try:
            ends: dict[TopicPartition, int] = reader.end_offsets(partitions, timeout_ms=10_000)
        finally:
            reader.close()
        return ends


def _ledger(tp: TopicPartition, position: Position, marker: Marker | None) -> Ledger:
    place = f"{tp.topic}/{tp.partition}"
    if not position.committed:
        # A first start writes a marker without clicks, then commits its offset.
        if marker is None or marker.seen == 0:
            return Ledger(next_offset=position.offset)
        raise StateMismatchError(
            f"{place} has sessions up to offset {marker.next_offset} but its consumer group has no "
            "committed offset. Set the group's offset to that value, or delete the changelog's "
            "records to start without sessions"
        )
    if marker is None or marker.next_offset < position.offset - position.gap:
        reached = "nowhere" if marker is None else f"up to {marker.next_offset}"
        raise StateMismatchError(
            f"{place}: committed offset {position.offset}, but its sessions reach {reached}. The "
            "changelog was truncated or the offsets were moved: set the group's offset back, or "
            "delete both to start anew"
        )
    return Ledger.restored(marker)


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
