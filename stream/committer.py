"""What both commit protocols share: a batch takes effect or not, and a failed producer never again.

The protocols are `at_least_once.py` and `exactly_once.py`. They know topics, bytes and offsets;
what these mean is the caller's business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import structlog
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import ConsumerGroupMetadata

from stream.batch import Outcome, Send
from stream.producers import NotDeliveredError, end, opened, patiently

log = structlog.get_logger(__name__)


class Committer(ABC):
    """Commit batches; one at a time, from one thread.

    One strike: after any failure the producer is never used again (kafka-python's D1 to D5 lose,
    double or misplace records of a producer that has failed once), and what was committed is asked,
    not guessed. `renewals` counts the producers that took over from another. `beat` is called in
    every wait for brokers and may raise to give up.
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
        self._flush_seconds = delivery_timeout_seconds + 1.0
        self._producer = self._open()
        self.renewals = 0

    def commit(
        self,
        sends: Iterable[Send],
        before: dict[TopicPartition, int],
        after: dict[TopicPartition, int],
        member: ConsumerGroupMetadata,
    ) -> Outcome:
        """Produce `sends` and move the committed offsets from `before` to `after`.

        `member` is the group membership under which the batch was polled. Raises what only leaving
        the process can mend: no permission, a record larger than brokers take, fenced, a sender
        thread that does not end.
        """
        try:
            self._attempt(sends, after, member)
        except (KafkaError, NotDeliveredError) as error:
            self._raise_if_final(error)
            log.warning("batch failed", error=repr(error))
            self._renew()
            return patiently(lambda: self._outcome(before, after), self._beat)
        return Outcome.KEPT

    def close(self) -> None:
        """End the producer; every batch is already committed."""
        end(self._producer)

    @abstractmethod
    def _attempt(
        self,
        sends: Iterable[Send],
        offsets: dict[TopicPartition, int],
        member: ConsumerGroupMetadata,
    ) -> None:
        """Deliver and commit; raises KafkaError or NotDeliveredError."""

    @abstractmethod
    def _raise_if_final(self, error: KafkaError | NotDeliveredError) -> None:
        """Raise what no other producer would mend."""

    @abstractmethod
    def _renew(self) -> None:
        """Replace the producer and count it."""

    def _open(self) -> KafkaProducer:
        return opened(self._make_producer, self._topics, self._beat)

    def _outcome(
        self, before: dict[TopicPartition, int], after: dict[TopicPartition, int]
    ) -> Outcome:
        # `committed()` waits while a transaction is pending.
        committed = {tp: self._consumer.committed(tp, timeout_ms=10_000) for tp in after}
        if committed == after:
            return Outcome.KEPT
        return Outcome.ROLLED_BACK if committed == before else Outcome.UNKNOWN
