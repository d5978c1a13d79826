"""The compacted `sessions` changelog: records, the marker of each partition, and reading it back.

It knows bytes, offsets and partitions; what a session means is the worker's business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

MARKER_KEY = b"\x00next"
TOMBSTONE_OFFSET_HEADER = "last_offset"
EXACTLY_ONCE = "exactly_once"
AT_LEAST_ONCE = "at_least_once"
UNFINISHED = -1


class ChangelogError(Exception):
    """The changelog cannot be read to its end or does not decode; the worker exits with 71."""


class StateMismatchError(ChangelogError):
    """The changelog and the committed offsets disagree; serving on would lose or double clicks."""


class SessionRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One user's session after a batch; key = user id in UTF-8.

    `hidden` is float32 little-endian of the encoder's state_dim; `items` are the last clicked items
    of the session, oldest first; `event_hashes` a ring of 32 uint64 (hash and offset of a click
    with an event id, 32 bits each), zero = empty.
    """

    schema: int
    last_offset: int
    generation: int
    version: str
    n: int
    digest: int
    session_hash: int
    length: int
    updated_at: int
    items: list[str]
    hidden: bytes
    event_hashes: bytes


class Rebuilt(msgspec.Struct, frozen=True):
    """The last rebuild of a partition's sessions: how many there were, up to where, and under what.

    `version` is the encoder's version under which every click below `next_offset` was applied.
    """

    number: int
    next_offset: int
    version: str


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """Where a partition stands: next click offset, and cumulative counts up to it (the ledger).

    `guarantee` is the protocol that committed it, and so tells how exactly it must agree with the
    committed offset. The counts begin at the click `start`; `lost` clicks since were never read.
    From the click `exact_from` on every outcome is there once. The changelog itself begins at its
    offset `changelog_start`, or something has cut it since. A rebuild that has begun but not
    ended leaves a marker with `next_offset` UNFINISHED.
    """

    next_offset: int
    generation: int
    version: str
    log_time: int
    seen: int = 0
    recommended: int = 0
    dead: int = 0
    skipped: dict[str, int] = {}
    guarantee: str = AT_LEAST_ONCE
    start: int = 0
    lost: int = 0
    exact_from: int = 0
    changelog_start: int = 0
    rebuilt: Rebuilt | None = None

    @property
    def rebuilds(self) -> int:
        """How often the sessions were rebuilt."""
        return self.rebuilt.number if self.rebuilt else 0

    @property
    def unfinished(self) -> bool:
        """Whether a rebuild of the sessions began and did not end."""
        return self.next_offset == UNFINISHED

    def agrees_with(self, committed: int) -> bool:
        """Tell whether the sessions are those of the `committed` offset, or just ahead of it.

        A transaction moves both together. Otherwise the offset is committed after the marker: a
        crash in between leaves sessions that are ahead, and clicks that are answered again.
        """
        if self.guarantee == EXACTLY_ONCE:
            return self.next_offset == committed
        return self.next_offset >= committed


def reaches_further(marker: Marker, other: Marker | None) -> bool:
    """Tell whether `marker` supersedes `other`: a stalled worker may append an older one late."""
    if other is None:
        return True
    return (marker.rebuilds, marker.next_offset) >= (other.rebuilds, other.next_offset)


class Entry(NamedTuple):
    """One changelog record: `record` is None for a tombstone, which still names `last_offset`."""

    partition: int
    user_id: str
    record: SessionRecord | None
    last_offset: int


_encoder = msgspec.msgpack.Encoder()
_session_decoder = msgspec.msgpack.Decoder(SessionRecord)
_marker_decoder = msgspec.json.Decoder(Marker)


def encode_session(record: SessionRecord) -> bytes:
    """Return the record's value bytes (msgpack array)."""
    return _encoder.encode(record)


def encode_marker(marker: Marker) -> bytes:
    """Return the marker's value bytes (JSON, so that an operator can read it)."""
    return msgspec.json.encode(marker)


def tombstone_headers(last_offset: int) -> list[tuple[str, bytes]]:
    """Return the headers of a tombstone: it must still say how far its user had come."""
    return [(TOMBSTONE_OFFSET_HEADER, b"%d" % last_offset)]


def decode(message: ConsumerRecord) -> Entry | Marker:
    """Decode one record of the changelog; raises ChangelogError for one that is not ours."""
    try:
        if message.key == MARKER_KEY:
            return _marker_decoder.decode(message.value)
        user_id = message.key.decode()
        if message.value is None:
            return Entry(message.partition, user_id, None, _tombstone_offset(message))
        record = _session_decoder.decode(message.value)
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError, TypeError) as error:
        place = f"{message.topic}/{message.partition}/{message.offset}"
        raise ChangelogError(f"the changelog record {place} does not decode: {error}") from error
    return Entry(message.partition, user_id, record, record.last_offset)


def _tombstone_offset(message: ConsumerRecord) -> int:
    for key, value in message.headers:
        if key == TOMBSTONE_OFFSET_HEADER and value.isdigit():
            return int(value)
    return -1


def read_to_end(
    reader: KafkaConsumer,
    end_offsets: dict[TopicPartition, int],
    *,
    between_slices: Callable[[], bool],
    stall_seconds: float = 60.0,
) -> Iterator[ConsumerRecord]:
    """Yield every record below `end_offsets` (high watermarks, not last stable offsets).

    Commit markers reach the changelog and the offsets topic independently, so a reader waits for
    the high watermark as Kafka Streams' StoreChangelogReader does. `between_slices` is called after
    each poll; False gives up. Raises ChangelogError after `stall_seconds` without progress.
    """
    waiting = {tp for tp, end in end_offsets.items() if end > 0}
    if waiting:
        reader.assign(sorted(waiting))
        reader.seek_to_beginning(*waiting)
    reached = dict.fromkeys(waiting, -1)
    deadline = time.monotonic() + stall_seconds
    while waiting:
        for tp, messages in reader.poll(timeout_ms=100).items():
            yield from (m for m in messages if m.offset < end_offsets[tp])
        if not between_slices():
            return
        positions = {tp: reader.position(tp, timeout_ms=5000) or 0 for tp in waiting}
        if positions != reached:
            deadline = time.monotonic() + stall_seconds
        elif time.monotonic() > deadline:
            raise ChangelogError(f"no progress for {stall_seconds:.0f} s, waiting for {waiting}")
        waiting = {tp for tp in waiting if positions[tp] < end_offsets[tp]}
        reached = {tp: positions[tp] for tp in waiting}
