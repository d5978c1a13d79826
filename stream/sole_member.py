"""Holds every partition of a topic, so that no other process does the same work; reads nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.errors import NoOffsetForPartitionError

from stream.rejoin import finish_rejoin

_JOIN_SECONDS: Final = 45.0


class NotAloneError(Exception):
    """Another member of the group holds partitions."""


class SoleMember(ConsumerRebalanceListener):
    """The only member of a group, or none: a second one takes over from the first.

    `join`, then go on while `settled`; otherwise `regain` and read positions anew. Partitions that
    the group gives are paused. The callbacks run on the client's IO thread and only take notes.
    """

    def __init__(self, consumer: KafkaConsumer, partitions: Iterable[TopicPartition]) -> None:
        self._consumer = consumer
        self._partitions = set(partitions)
        self._held: set[TopicPartition] | None = None  # None: a rebalance is going on
        self._round = 0
        self._settled_in: int | None = None

    def join(self) -> None:
        """Wait until every partition is ours; raises NotAloneError when others keep some."""
        self._consumer.subscribe(sorted({tp.topic for tp in self._partitions}), listener=self)
        self._gather(patient=True)

    def regain(self) -> None:
        """Wait for the end of a rebalance; raises NotAloneError when it was for another member."""
        self._gather(patient=False)

    @property
    def settled(self) -> bool:
        """Whether no rebalance has begun since `join` or `regain`."""
        return self._held is not None and self._settled_in == self._round

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Note what the group gave."""
        given = set(assigned)
        self._consumer.pause(*given)
        self._round += 1
        self._held = given

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Note that a rebalance has begun."""
        self._held = None

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """Note that the group no longer counts us in."""
        self._held = None

    def _gather(self, *, patient: bool) -> None:
        deadline = time.monotonic() + _JOIN_SECONDS
        while (held := self._held) != self._partitions:
            if (held is not None and not patient) or time.monotonic() > deadline:
                raise NotAloneError
            with suppress(NoOffsetForPartitionError):
                self._consumer.poll(timeout_ms=200)
            finish_rejoin(self._consumer)
        self._settled_in = self._round
