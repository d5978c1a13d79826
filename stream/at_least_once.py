"""The commit protocol in which nothing is lost and only output may repeat.

It knows topics, bytes and offsets; what they mean is the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import FencedInstanceIdError, KafkaError
from kafka.structs import ConsumerGroupMetadata

from stream.assignment import Lease
from stream.batch import Outcome, Send, committed_outcome
from stream.positions import as_commit
from stream.producers import FINAL_ERRORS, NotDeliveredError, deliver, end, opened, patiently

log = structlog.get_logger(__name__)


class _LeaseExpiredError(Exception):
    """The group has not been heard for so long that another member may own the partitions."""


class AtLeastOnce:
    """A `Committer`: 1 send, 2 flush, 3 check every future, 4 commit offsets.

    On any failure 5 end the producer, open another and 6 ask what is committed. Nothing fences a
    stalled producer here, so a batch begins and commits only while the group's lease holds (D12).
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
        self._lease = Lease(consumer)
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
        """Produce `sends`, then move the committed offsets from `before` to `after`."""
        try:
            self._require_lease()
            deliver(self._producer, sends, self._flush_seconds)
            self._require_lease()
            self._consumer.commit(as_commit(after), timeout_ms=int(self._flush_seconds * 1000))
        except (*FINAL_ERRORS, FencedInstanceIdError):
            raise
        except (KafkaError, NotDeliveredError, _LeaseExpiredError) as error:
            log.warning("batch failed", error=repr(error))
            self._renew()
            return patiently(lambda: committed_outcome(self._consumer, before, after), self._beat)
        return Outcome.KEPT

    def close(self) -> None:
        """End the producer; every batch is already committed."""
        end(self._producer)

    def _require_lease(self) -> None:
        if not self._lease.held:
            raise _LeaseExpiredError("no heartbeat was answered for most of the session timeout")

    def _open(self) -> KafkaProducer:
        return opened(self._make_producer, self._topics, self._beat)

    def _renew(self) -> None:
        # Without transactions nothing fences the old producer, so it is gone before the new starts.
        end(self._producer)
        self.renewals += 1
        self._producer = patiently(self._open, self._beat)
