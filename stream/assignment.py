"""Which partitions this member holds, and whether the group still counts it in; acts on nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.structs import ConsumerGroupMetadata

_LEASE_SHARE: Final = 0.8


class Assignment(ConsumerRebalanceListener):
    """Partitions that are new, gone and live.

    The callbacks run on the client's IO thread, where only pause, seek and resume are allowed, so
    they take notes and pause what has no state yet. The loop restores `new`, drops `gone` and
    processes records of `live` only.
    """

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer
        self.new: set[TopicPartition] = set()
        self.gone: set[TopicPartition] = set()
        self.live: set[TopicPartition] = set()
        self.rebalances = 0

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Pause and note the partitions whose sessions have to be restored."""
        fresh = {tp for tp in assigned if tp not in self.live or tp in self.gone}
        self._consumer.pause(*fresh)
        self.new |= fresh
        self.rebalances += 1

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Note the partitions whose sessions have to be dropped."""
        self.gone |= set(revoked)
        self.new -= set(revoked)

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """Treat lost partitions as revoked: nothing was committed since the last batch."""
        self.on_partitions_revoked(lost)

    def take_gone(self) -> set[TopicPartition]:
        """Return the partitions to drop and forget that they were live."""
        gone, self.gone = self.gone, set()
        self.live -= gone
        return gone

    def drop_all(self) -> None:
        """Forget every live partition: the group no longer counts us as a member."""
        self.live.clear()


def membership(consumer: KafkaConsumer) -> ConsumerGroupMetadata | None:
    """Return the group membership at this moment, or None when the group does not count us in.

    After a stall the client's own shows generation -1 and an empty member id, and brokers skip
    fencing for such commits (D4): the caller asks right after each poll and commits with that.
    """
    metadata = consumer.group_metadata()  # type: ignore[no-untyped-call]  # not in the stubs
    return metadata if metadata.generation_id >= 0 and metadata.member_id else None


class Lease:
    """Whether the group has been heard lately enough that no other member owns our partitions.

    The client notes the loss of a static member's place in its log only, and polls on (D12).
    """

    def __init__(self, consumer: KafkaConsumer) -> None:
        # The client's metric of the last heartbeat counts from the last one sent.
        self._coordinator = consumer._coordinator  # type: ignore[attr-defined]  # not in the stubs
        self._seconds = _LEASE_SHARE * consumer.config["session_timeout_ms"] / 1000

    @property
    def held(self) -> bool:
        """Whether a heartbeat was answered, or the group joined, within 0.8 session timeouts."""
        heartbeat = self._coordinator.heartbeat
        heard = max(heartbeat.last_receive, heartbeat.last_reset)
        return bool(time.monotonic() - heard < self._seconds)

    @property
    def fenced(self) -> bool:
        """Whether another process has taken this static member's place.

        The client then disables its heartbeat and stays in the state of a member for ever.
        """
        coordinator = self._coordinator
        return bool(not coordinator._heartbeat_enabled and coordinator.stable() and not self.held)
