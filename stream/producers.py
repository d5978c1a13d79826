"""Producers for one commit protocol or the other: open, deliver a batch, end for good.

It knows no offsets and no transactions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

import structlog
from kafka import KafkaProducer
from kafka.errors import (
    AuthorizationError,
    KafkaError,
    MessageSizeTooLargeError,
    RetriableError,
    UnknownError,
)

from stream.batch import Send
from stream.record_batches import append, failures

log = structlog.get_logger(__name__)
Answer = TypeVar("Answer")

FINAL_ERRORS = (AuthorizationError, MessageSizeTooLargeError)  # no other producer mends these

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_SENDER_END_SECONDS = 5.0


class ProducerStuckError(Exception):
    """The sender thread of a retired producer cannot be ended; only leaving the process helps."""


class NotDeliveredError(Exception):
    """At least one record was not acknowledged; `cause` is the first one's error."""

    def __init__(self, cause: BaseException | None) -> None:
        super().__init__(repr(cause))
        self.cause = cause


def opened(
    make_producer: Callable[[], KafkaProducer], topics: Iterable[str], beat: Callable[[], None]
) -> KafkaProducer:
    """Return a new producer that knows the metadata of `topics`: `append` does not wait for it."""
    producer = make_producer()
    try:
        for topic in topics:
            producer.partitions_for(topic)
            beat()
    except KafkaError:
        end(producer)
        raise
    return producer


def deliver(producer: KafkaProducer, sends: Iterable[Send], timeout_seconds: float) -> None:
    """Send, flush, and check every batch; raises NotDeliveredError or a KafkaError, a final one
    if any record met it.

    A flush that returns proves nothing (D1): a batch that timed out has left the buffer as well.
    """
    deliveries = append(producer, sends)
    _flush(producer, timeout_seconds)
    failed = failures(deliveries)
    for error in failed:
        if isinstance(error, FINAL_ERRORS):
            raise error
    if failed:
        raise NotDeliveredError(failed[0])


def _flush(producer: KafkaProducer, timeout_seconds: float) -> None:
    """Flush; again when a batch was found too large and split meanwhile, which the client's flush
    takes for an error.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            return producer.flush(timeout=max(0.0, deadline - time.monotonic()))
        except UnknownError:
            if time.monotonic() >= deadline:
                raise


def end(producer: KafkaProducer) -> None:
    """End the producer and whatever it still had to send; raises ProducerStuckError."""
    # `close` waits for pending records first and then leaves the sender running (D10).
    sender = producer._sender  # type: ignore[attr-defined]  # the stubs leave it out
    sender.force_close()
    sender.join(_SENDER_END_SECONDS)
    if sender.is_alive():
        raise ProducerStuckError("the sender thread of a retired producer does not end")
    # Nothing is pending any more: this only keeps the finaliser from flushing a second later.
    with suppress(KafkaError):
        producer.close(timeout=0)


def patiently(ask: Callable[[], Answer], beat: Callable[[], None]) -> Answer:
    """Return the answer of `ask`, which is asked again while brokers are away.

    There is no limit: a worker outlasts its brokers. `beat` is called before each attempt and may
    raise to give up; pauses grow from 0.1 to 5 s. Other errors than retriable ones are raised.
    """
    pause = _FIRST_PAUSE_SECONDS
    while True:
        beat()
        try:
            return ask()
        except (RetriableError, ConnectionError) as error:
            log.warning("brokers do not answer", error=repr(error))
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE_SECONDS, 2 * pause)
