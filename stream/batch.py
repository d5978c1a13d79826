"""The commit protocol of one batch: outputs first, every one acknowledged, then the offsets.

It knows topics, bytes and offsets; what they mean is the caller's business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from typing import NamedTuple

import structlog
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import AuthorizationError, KafkaError
from kafka.producer.future import FutureRecordMetadata

from stream.positions import as_commit

log = structlog.get_logger(__name__)


class Send(NamedTuple):
    """One record to produce."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Outcome(Enum):
    """What became of a batch, and so what the caller does with its state."""

    KEPT = auto()
    ROLLED_BACK = auto()
    UNKNOWN = auto()


class ProducerStuckError(Exception):
    """The sender thread of a retired producer cannot be ended; only leaving the process helps."""


class _NotDeliveredError(Exception):
    """At least one record was not acknowledged."""


class AtLeastOnce:
    """Commit batches so that nothing is lost and only output may repeat.

    One strike: after any failure the producer is never used again (kafka-python's D1 to D3 lose or
    double records of a producer that has failed once), and what was committed is asked, not
    guessed. Raises ProducerStuckError when the failed producer cannot be ended, and the Kafka
    error when the brokers do not answer in time or do not allow it: no retry would help.
    """

    def __init__(
        self,
        consumer: KafkaConsumer,
        make_producer: Callable[[], KafkaProducer],
        topics: Iterable[str],
        *,
        delivery_timeout_seconds: float,
        beat: Callable[[], None],
    ) -> None:
        self._consumer = consumer
        self._make_producer = make_producer
        self._topics = tuple(topics)
        self._beat = beat
        self._producer = self._open()
        self._flush_seconds = delivery_timeout_seconds + 1.0
        self.renewals = 0

    def commit(
        self,
        sends: Iterable[Send],
        before: dict[TopicPartition, int],
        after: dict[TopicPartition, int],
    ) -> Outcome:
        """Produce `sends`, then move the committed offsets from `before` to `after`.

        1 send, 2 flush, 3 check every future, 4 commit offsets; on any failure 5 renew the
        producer and 6 ask what is committed.
        """
        try:
            with _unhurried(self._producer):
                futures = [self._send(record) for record in sends]
            self._producer.flush(timeout=self._flush_seconds)
            _require_delivered(futures)
            self._consumer.commit(as_commit(after), timeout_ms=int(self._flush_seconds * 1000))
        except AuthorizationError:
            raise
        except (KafkaError, _NotDeliveredError) as error:
            log.warning("batch failed", error=repr(error))
            self._renew()
            return self._settle(before, after)
        return Outcome.KEPT

    def close(self) -> None:
        """End the producer; every batch is already flushed."""
        _end(self._producer)

    def _open(self) -> KafkaProducer:
        producer = self._make_producer()
        try:
            for topic in self._topics:
                # Their metadata must be there before `_unhurried` keeps the sender from waking.
                producer.partitions_for(topic)
                self._beat()
        except KafkaError:
            _end(producer)
            raise
        return producer

    def _send(self, record: Send) -> FutureRecordMetadata:
        return self._producer.send(
            record.topic,
            value=record.value,
            key=record.key,
            headers=record.headers,
            partition=record.partition,
        )

    def _renew(self) -> None:
        # Without transactions nothing fences the old producer, so it is gone before the new starts.
        _end(self._producer)
        self.renewals += 1
        deadline = time.monotonic() + 60.0
        pause = 0.1
        while True:
            self._beat()
            try:
                self._producer = self._open()
            except (KafkaError, ConnectionError) as error:
                if time.monotonic() > deadline:
                    raise
                log.warning("no producer yet", error=repr(error))
                time.sleep(pause)
                pause = min(5.0, 2 * pause)
            else:
                return

    def _settle(
        self, before: dict[TopicPartition, int], after: dict[TopicPartition, int]
    ) -> Outcome:
        committed = {tp: self._consumer.committed(tp, timeout_ms=10_000) for tp in after}
        if committed == after:
            return Outcome.KEPT
        return Outcome.ROLLED_BACK if committed == before else Outcome.UNKNOWN


@contextmanager
def _unhurried(producer: KafkaProducer) -> Iterator[None]:
    """Let the sender sleep until the flush.

    The client wakes it, a system call and two thread switches, at each record that opens a batch
    (docs/decisions/0005-producer-batches.md).
    """
    sender = producer._sender  # type: ignore[attr-defined]  # the stubs leave it out
    sender.wakeup = _nothing
    try:
        yield
    finally:
        del sender.wakeup


def _nothing() -> None:
    pass


def _require_delivered(futures: list[FutureRecordMetadata]) -> None:
    for future in futures:
        if isinstance(future.exception, AuthorizationError):
            raise future.exception
        if not future.succeeded():
            raise _NotDeliveredError(repr(future.exception))


def _end(producer: KafkaProducer) -> None:
    # `close` waits for pending records first and then leaves the sender running (D10).
    sender = producer._sender  # type: ignore[attr-defined]  # the stubs leave it out
    sender.force_close()
    sender.join(5.0)
    if sender.is_alive():
        raise ProducerStuckError("the sender thread of a retired producer does not end")
    # Nothing is pending any more: this only keeps the finaliser from flushing a second later.
    with suppress(KafkaError):
        producer.close(timeout=0)
