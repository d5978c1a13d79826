"""Records that could not be used: how they are written and read back; knows no reason's meaning."""

import hashlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple, Protocol

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError
from msgspec import Struct

from stream.clients import reader
from stream.decoding import DecodeError
from stream.headers import Headers, parse_headers
from stream.positions import end_offsets, first_offsets
from stream.settings import KafkaSettings

PREFIX: Final = "__nextclick.errors."
KEPT_BYTES: Final = 1024
_MAX_KEY_BYTES: Final = 16 * 1024
_MAX_MESSAGE_CHARS: Final = 256
_MAX_DIGITS: Final = 18
_READ_TIMEOUT_MS: Final = 10_000
_POLL_MS: Final = 200


class Record(Protocol):
    """What is read of a consumed record."""

    @property
    def topic(self) -> str: ...  # noqa: D102  Kafka's own names
    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...  # noqa: D102


class Letter(NamedTuple):
    """A dead letter to be sent."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A dead letter that was read back.

    `attempt` counts earlier replays; of one that is `cut`, key or value are not whole.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    stage: str
    reason: str
    message: str
    app: str
    version: str
    attempt: int
    cut: bool
    key: bytes | None
    value: bytes | None


def dead_letter(
    record: Record,
    reason: str,
    *,
    app: str,
    version: str,
    stage: str = "decode",
    error: DecodeError | None = None,
) -> Letter:
    """Return the dead letter of `record`: its own bytes, and why it died in the headers.

    An oversize value is cut to its first KiB, with size and sha256 of the whole beside it, so that
    a dead letter can always be sent. The detail of a `DecodeError` holds no personal data.
    """
    fields = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "stage": stage,
        "reason": reason,
        "exception.class": type(error).__name__ if error else "",
        "message": error.detail[:_MAX_MESSAGE_CHARS] if error else "",
        "app": app,
        "version": version,
        "attempt": _attempt(record.headers),
    }
    key, value = record.key, record.value
    if reason == "oversize" and value is not None:
        fields |= _whole("value", value)
        value = value[:KEPT_BYTES]
    if key is not None and len(key) > _MAX_KEY_BYTES:
        fields |= _whole("key", key)
        key = key[:KEPT_BYTES]
    if key is None and value is None:
        value = b""  # the client refuses to send neither
    headers = [(PREFIX + name, str(text).encode()) for name, text in fields.items()]
    # A structured-mode click cannot be read again without its content type.
    headers += _content_type(record.headers)
    return Letter(key, value, headers)


def parse(record: Record) -> DeadLetter:
    """Return the dead letter in `record`; what its headers do not say is empty or -1."""
    text = parse_headers(record.headers)
    said = {name[len(PREFIX) :]: value for name, value in text.items() if name.startswith(PREFIX)}
    return DeadLetter(
        topic=said.get("topic", ""),
        partition=_int(said.get("partition")),
        offset=_int(said.get("offset")),
        timestamp=_int(said.get("timestamp")),
        stage=said.get("stage", ""),
        reason=said.get("reason", ""),
        message=said.get("message", ""),
        app=said.get("app", ""),
        version=said.get("version", ""),
        attempt=max(0, _int(said.get("attempt"))),
        cut="value.bytes" in said or "key.bytes" in said,
        key=record.key,
        value=record.value,
    )


def replay_headers(record: Record, attempt: int) -> list[tuple[str, bytes]]:
    """Return the headers of a dead letter's click: its own, and which attempt it is now."""
    own = [(n, v) for n, v in record.headers if v is not None and not n.startswith(PREFIX)]
    return [*own, (f"{PREFIX}attempt", b"%d" % attempt)]


def newest(settings: KafkaSettings, topic: str, *, limit: int) -> list[DeadLetter]:
    """Return up to `limit` of the newest dead letters of each partition, oldest first."""
    consumer = reader(settings, client_id=f"{settings.app}-dlq")
    try:
        partitions = dead_letter_partitions(consumer, topic)
        consumer.assign(partitions)
        return [parse(record) for tp in partitions for record in _tail(consumer, tp, limit)]
    finally:
        consumer.close()


def dead_letter_partitions(consumer: KafkaConsumer, topic: str) -> list[TopicPartition]:
    """Return the partitions of the topic, none if it does not exist."""
    return [TopicPartition(topic, n) for n in sorted(consumer.partitions_for_topic(topic) or ())]


def edges(consumer: KafkaConsumer, tp: TopicPartition) -> tuple[int, int]:
    """Return the first offset and the end of a partition."""
    return first_offsets(consumer, [tp])[tp], end_offsets(consumer, [tp])[tp]


def slices(
    consumer: KafkaConsumer, tp: TopicPartition, start: int, end: int, *, max_records: int = 500
) -> Iterator[list[Record]]:
    """Yield the records of an assigned partition from `start` to below `end`, poll by poll.

    A slice may be empty. Other partitions are paused meanwhile. Raises KafkaTimeoutError when
    nothing moves for 10 s.
    """
    for other in consumer.assignment() - {tp}:
        consumer.pause(other)
        consumer.seek(other, 0)  # without a position every poll would ask for one, and raise
    consumer.seek(tp, start)
    consumer.resume(tp)
    reached, deadline = start, _deadline()
    while reached < end:
        records = consumer.poll(timeout_ms=_POLL_MS, max_records=max_records).get(tp, [])
        yield [record for record in records if record.offset < end]
        # Not the last record: a transaction's marker takes an offset and is never delivered.
        position = consumer.position(tp, timeout_ms=_READ_TIMEOUT_MS) or start
        if position > reached:
            reached, deadline = position, _deadline()
        elif time.monotonic() > deadline:
            raise KafkaTimeoutError(f"{tp.topic}/{tp.partition}: no record in 10 s below {end}")


def _deadline() -> float:
    return time.monotonic() + _READ_TIMEOUT_MS / 1000


def _tail(consumer: KafkaConsumer, tp: TopicPartition, limit: int) -> Iterator[Record]:
    first, end = edges(consumer, tp)
    # In a transaction every letter may be followed by a marker, which takes an offset as well.
    start = max(first, end - 2 * limit)
    last: deque[Record] = deque(maxlen=limit)
    for records in slices(consumer, tp, start, end):
        last.extend(records)
    return iter(last)


def _content_type(headers: Headers) -> list[tuple[str, bytes]]:
    # One of a bounded size: a dead letter that is too large to send would stop the worker.
    found = ((n, v) for n, v in headers if n == "content-type" and v and len(v) <= KEPT_BYTES)
    return [(name, value) for name, value in islice(found, 1) if value]


def _attempt(headers: Headers) -> int:
    return max(0, _int(parse_headers(headers).get(f"{PREFIX}attempt")))


def _whole(part: str, data: bytes) -> dict[str, str | int]:
    return {f"{part}.bytes": len(data), f"{part}.sha256": hashlib.sha256(data).hexdigest()}


def _int(text: str | None) -> int:
    # Headers may say anything: what is no plain number of 64 bits counts as not said.
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        return -1
    return int(text)
