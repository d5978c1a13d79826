"""Which partitions this member holds: notes from rebalance callbacks, acted on by the loop."""

from __future__ import annotations

from collections.abc import Iterable

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition


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


def member_generation(consumer: KafkaConsumer) -> int:
    """Return the group generation that counts us in, or -1 when none does.

    `group_metadata()` is a live view: after a stall it shows generation -1 and an empty member id,
    and brokers skip fencing for such commits (D4), so the caller asks right after each poll.
    """
    metadata = consumer.group_metadata()  # type: ignore[no-untyped-call]  # not in the stubs
    return int(metadata.generation_id) if metadata.member_id else -1
