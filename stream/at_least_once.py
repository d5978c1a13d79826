"""The commit protocol in which nothing is lost and only output may repeat."""

from __future__ import annotations

from collections.abc import Iterable

from kafka import TopicPartition
from kafka.errors import FencedInstanceIdError, KafkaError
from kafka.structs import ConsumerGroupMetadata

from stream.assignment import Lease
from stream.batch import Send
from stream.committer import Committer
from stream.positions import as_commit
from stream.producers import FINAL_ERRORS, NotDeliveredError, deliver, end, patiently


class _LeaseExpiredError(KafkaError):
    """The group has not been heard for so long that another member may own the partitions."""


class AtLeastOnce(Committer):
    """1 send, 2 flush, 3 check every future, 4 commit offsets.

    On any failure 5 end the producer, open another and 6 ask what is committed. Nothing fences a
    stalled producer here, so a batch begins and commits only while the group's lease holds (D12).
    """

    def _attempt(
        self,
        sends: Iterable[Send],
        offsets: dict[TopicPartition, int],
        member: ConsumerGroupMetadata,
    ) -> None:
        # `member` is not needed: the consumer's own commit names the membership, and it is refused
        # when that is of another generation.
        self._require_lease()
        deliver(self._producer, sends, self._flush_seconds)
        self._require_lease()
        self._consumer.commit(as_commit(offsets), timeout_ms=int(self._flush_seconds * 1000))

    def _require_lease(self) -> None:
        if not Lease(self._consumer).held:
            raise _LeaseExpiredError("no heartbeat was answered for most of the session timeout")

    def _raise_if_final(self, error: KafkaError | NotDeliveredError) -> None:
        if isinstance(error, (*FINAL_ERRORS, FencedInstanceIdError)):
            raise error

    def _renew(self) -> None:
        # Without transactions nothing fences the old producer, so it is gone before the new starts.
        end(self._producer)
        self.renewals += 1
        self._producer = patiently(self._open, self._beat)
