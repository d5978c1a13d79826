"""Clicks sent at their due times whatever becomes of them, and when each answer could be read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from stream.headers import provenance
from stream.kafka_types import ConsumerRecord, KafkaConsumer, KafkaProducer, TopicPartition
from stream.messages import ClickEvent, encode

_POLL_MS = 200
_PAUSE_SECONDS = 0.01
_FUTURE_SECONDS = 30.0

Array = np.ndarray[Any, np.dtype[np.float64]]


class Place(NamedTuple):
    """Where a click lies."""

    partition: int
    offset: int


class Sent(NamedTuple):
    """One click: when it was due, where it lies and when the broker appended it (Unix seconds)."""

    due: float
    place: Place
    appended: float


class Seen(NamedTuple):
    """When a recommendation could be read, and when the broker appended it (Unix seconds)."""

    read: float
    appended: float


@dataclass(frozen=True)
class Latencies:
    """Milliseconds of every click; `publish` is the part before the click is in its topic.

    A click that was sent late counts from when it was due, else a stall would hide the clicks that
    it held up. Append times are the broker's, cut to milliseconds.
    """

    due_to_read: Array
    append_to_read: Array
    append_to_append: Array
    publish: Array


def offer(
    send: Callable[[int], Any],
    count: int,
    per_second: float,
    *,
    now: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> list[tuple[float, Any]]:
    """Call `send` with 0, 1, 2 … at even distances; return when each was due and what it gave.

    Due times are fixed at the start: a call that comes late moves none of the later ones.
    """
    start = now()
    given = []
    for number in range(count):
        due = start + number / per_second
        early = due - now()
        if early > 0:
            sleep(early)
        given.append((due, send(number)))
    return given


def send_clicks(
    producer: KafkaProducer,
    topic: str,
    clicks: Iterable[tuple[str, str, str]],
    per_second: float,
) -> list[Sent]:
    """Send clicks (user, item, session) at a steady rate; return what became of each."""
    now_ms = int(time.time() * 1000)
    records = [
        (user_id.encode(), encode(_click(user_id, item_id, session_id, now_ms)))
        for user_id, item_id, session_id in clicks
    ]

    def send(number: int) -> Any:
        key, value = records[number]
        return producer.send(topic, value=value, key=key)

    offered = offer(send, len(records), per_second)
    producer.flush(timeout=_FUTURE_SECONDS)
    return [_sent(due, future.get(timeout=_FUTURE_SECONDS)) for due, future in offered]


def _click(user_id: str, item_id: str, session_id: str, now_ms: int) -> ClickEvent:
    return ClickEvent(user_id=user_id, item_id=item_id, session_id=session_id, timestamp=now_ms)


def _sent(due: float, metadata: Any) -> Sent:
    return Sent(due, Place(metadata.partition, metadata.offset), metadata.timestamp / 1000)


class Watcher:
    """Reads recommendations in a thread as any consumer would and notes when it had each."""

    def __init__(self, reader: KafkaConsumer, partitions: Sequence[TopicPartition]) -> None:
        self._reader = reader
        reader.assign(partitions)
        reader.seek_to_beginning()
        self._read: list[tuple[float, ConsumerRecord]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher")
        self._thread.start()

    def await_count(self, count: int, seconds: float) -> None:
        """Wait until so many were read in all; raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while len(self._read) < count:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise TimeoutError(f"{len(self._read)} of {count} recommendations read")
            time.sleep(_PAUSE_SECONDS)

    def seen(self) -> dict[Place, Seen]:
        """Return the first copy of each recommendation by the place of its click."""
        first: dict[Place, Seen] = {}
        for read, record in self._read:
            origin = provenance(record.headers)
            place = Place(origin.partition, origin.offset)
            first.setdefault(place, Seen(read, record.timestamp / 1000))
        return first

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop.is_set():
            polled = self._reader.poll(timeout_ms=_POLL_MS)
            read = time.time()
            self._read.extend((read, record) for each in polled.values() for record in each)


def latencies(sent: Iterable[Sent], seen: dict[Place, Seen]) -> Latencies:
    """Return the latencies of the clicks; raises KeyError for one that has no answer."""
    rows = [(click.due, click.appended, *seen[click.place]) for click in sent]
    due, appended, read, answered = 1000 * np.array(rows, dtype=np.float64).T
    return Latencies(
        due_to_read=read - due,
        append_to_read=read - appended,
        append_to_append=answered - appended,
        publish=appended - due,
    )


def percentiles(milliseconds: Array) -> dict[str, float]:
    """Return p50, p99, p99.9 and the maximum; each is a latency that a click really had."""
    shares = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
    return {
        name: round(float(np.percentile(milliseconds, share, method="higher")), 1)
        for name, share in shares.items()
    }
