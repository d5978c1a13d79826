"""What the worker knows of each partition it serves: next offset and ledger; reads no topic."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from stream.kafka_types import KafkaConsumer, TopicPartition
from worker.ledger import Ledger
from worker.metrics import WorkerMetrics
from worker.sessions import Sessions


class Partitions:
    """The partitions whose sessions are here; `drop` forgets one with all that belongs to it."""

    def __init__(self, sessions: Sessions, metrics: WorkerMetrics) -> None:
        self._sessions = sessions
        self._metrics = metrics
        self.ledgers: dict[int, Ledger] = {}
        self.next_offset: dict[TopicPartition, int] = {}

    def take(self, tp: TopicPartition, next_offset: int, ledger: Ledger) -> None:
        """Serve `tp` from `next_offset` on; its sessions are already here."""
        self.ledgers[tp.partition] = ledger
        self.next_offset[tp] = next_offset

    def move(self, after: Mapping[TopicPartition, int], ledgers: Mapping[int, Ledger]) -> None:
        """Take note of a committed batch."""
        self.ledgers.update(ledgers)
        self.next_offset.update(after)

    def drop(self, tp: TopicPartition) -> None:
        """Forget the partition and its sessions."""
        self._sessions.drop(tp.partition)
        self.ledgers.pop(tp.partition, None)
        self.next_offset.pop(tp, None)
        self._metrics.forget_partition(tp.topic, tp.partition)

    def go_back(
        self, consumer: KafkaConsumer, live: Iterable[TopicPartition]
    ) -> set[TopicPartition]:
        """Have the consumer read on where each of `live` is; returns those that it still holds."""
        held = set(live) & consumer.assignment()
        for tp in held:
            consumer.seek(tp, self.next_offset[tp])
        return held

    def observe_lag(self, consumer: KafkaConsumer, held: Iterable[TopicPartition]) -> None:
        """Set the lag gauges of the partitions in `held` from what the last fetches said."""
        for tp in self.next_offset.keys() & set(held):
            end = consumer.highwater(tp)
            if end is not None:
                lag = max(0, end - self.next_offset[tp])
                last_read = self.ledgers[tp.partition].log_time
                age = max(0.0, time.time() - last_read / 1000) if lag and last_read else 0.0
                self._metrics.lag.labels(tp.topic, tp.partition).set(lag)
                self._metrics.lag_seconds.labels(tp.topic, tp.partition).set(age)
