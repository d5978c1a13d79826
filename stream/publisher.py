"""Publishes clicks with bounded buffering and at a given pace; knows nothing of their origin."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from threading import Event
from typing import Final, NamedTuple

from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.producer.future import FutureRecordMetadata

from stream.messages import ClickEvent, encode

TICK_SECONDS: Final = 0.005
"""Shortest wait: at more clicks than one per tick they go out in small bursts, a little late."""


class PublishError(RuntimeError):
    """Clicks were not acknowledged; the text says how many and why the first one was not."""


class PacedClick(NamedTuple):
    """A click that is due `due_ms` after the start; None: as soon as possible."""

    user_id: str
    item_id: str
    session_id: str | None
    due_ms: float | None


class ClickPublisher:
    """Sends clicks keyed by user, at most `max_in_flight` of them unacknowledged.

    `published` and `failed` count the clicks whose fate is known.
    """

    def __init__(
        self,
        producer: KafkaProducer,
        topic: str,
        *,
        max_in_flight: int = 5_000,
        timeout_seconds: float = 30.0,
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._max_in_flight = max_in_flight
        self._timeout_seconds = timeout_seconds
        self._in_flight: deque[FutureRecordMetadata] = deque()
        self._first_error: BaseException | None = None
        self.published = 0
        self.failed = 0

    def publish(
        self, user_id: str, item_id: str, timestamp_ms: int, *, session_id: str | None = None
    ) -> None:
        """Send one click; wait for the oldest unacknowledged one when there are too many."""
        click = ClickEvent(
            user_id=user_id, item_id=item_id, timestamp=timestamp_ms, session_id=session_id
        )
        self._make_room()
        try:
            future = self._producer.send(self._topic, value=encode(click), key=user_id.encode())
        except KafkaError as error:
            raise PublishError(
                f"cannot publish to topic {self._topic} (`nextclick topics describe` shows whether"
                f" it exists): {error!r}"
            ) from error
        self._in_flight.append(future)

    def flush(self) -> None:
        """Wait until the fate of every click is known; raise PublishError if one has failed."""
        try:
            self._producer.flush(timeout=self._timeout_seconds)
        except KafkaError as error:
            self._first_error = self._first_error or error
        while self._in_flight:
            self._count(self._in_flight.popleft())
        if self.failed:
            raise PublishError(
                f"{self.failed} of {self.failed + self.published} clicks were not acknowledged"
                f" by topic {self._topic}; the first: {self._first_error!r}"
            ) from self._first_error

    def _make_room(self) -> None:
        while self._in_flight and self._in_flight[0].is_done:
            self._count(self._in_flight.popleft())
        if len(self._in_flight) < self._max_in_flight:
            return
        oldest = self._in_flight.popleft()
        try:
            oldest.get(timeout=self._timeout_seconds)  # type: ignore[no-untyped-call]  # kafka-python
        except KafkaError as error:
            self._first_error = self._first_error or error
        self._count(oldest)

    def _count(self, future: FutureRecordMetadata) -> None:
        if future.succeeded():
            self.published += 1
        else:
            self.failed += 1
            self._first_error = self._first_error or future.exception


def publish_paced(
    publisher: ClickPublisher,
    clicks: Iterable[PacedClick],
    *,
    start_ms: int,
    stop: Event,
    monotonic: Callable[[], float] = time.monotonic,
) -> int:
    """Publish each click when it is due, until `stop` is set or one failed; return how many.

    Each is stamped with `start_ms` plus the time it was due, so that old logs become recent and
    keep their rhythm. The caller flushes.
    """
    started = monotonic()
    num_sent = 0
    for click in clicks:
        elapsed = monotonic() - started
        if click.due_ms is not None and click.due_ms > elapsed * 1_000:
            stop.wait(max(TICK_SECONDS, click.due_ms / 1_000 - elapsed))
        if stop.is_set() or publisher.failed:
            break
        due_ms = elapsed * 1_000 if click.due_ms is None else click.due_ms
        publisher.publish(
            click.user_id, click.item_id, start_ms + int(due_ms), session_id=click.session_id
        )
        num_sent += 1
    return num_sent
