"""Sends dead letters to the clicks again, each once and three times at most; knows no reason.

A position is committed after its letters are acknowledged: a process that is killed between the two
sends up to `SLICE` letters again in the next run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    RebalanceInProgressError,
)
from kafka.producer.future import FutureRecordMetadata
from kafka.structs import OffsetAndMetadata

from stream.dead_letters import (
    Record,
    dead_letter_partitions,
    edges,
    replay_headers,
    slices,
)
from stream.replay_position import ReplayPosition
from stream.replay_selection import (
    SLICE,
    Selection,
    Step,
    Tally,
    click_partition,
    enter,
    steps_of,
)
from stream.settings import TopicSettings
from stream.sole_member import NotAloneError, SoleMember

_TIMEOUT_MS: Final = 10_000


class ReplayError(RuntimeError):
    """The replay cannot start or go on; the text says why and what to do."""


def preview(consumer: KafkaConsumer, topic: str, selection: Selection) -> Tally:
    """Return what a replay would do; changes nothing and joins no group."""
    tally = Tally()
    partitions = dead_letter_partitions(consumer, topic)
    consumer.assign(partitions)
    for tp in partitions:
        position, end = _position(consumer, tp)
        for records in slices(consumer, tp, position.base, end, max_records=SLICE):
            room = selection.room(tally.chosen.total())
            for step in steps_of(records, position, selection, room):
                enter(step, position, tally)
            if not selection.room(tally.chosen.total()):
                return tally
    return tally


class Replay:
    """One run over the dead letters as they are now; `tally` shows how far it is.

    1 join the group that remembers, 2 read a slice, 3 send, 4 check every future, 5 commit. A
    second run takes over from the first, which ends with a ReplayError.
    """

    def __init__(
        self,
        consumer: KafkaConsumer,
        producer: KafkaProducer,
        topics: TopicSettings,
        selection: Selection,
    ) -> None:
        self._consumer = consumer
        self._producer = producer
        self._topics = topics
        self._selection = selection
        self._num_partitions = len(consumer.partitions_for_topic(topics.clicks) or ())
        self._partitions = dead_letter_partitions(consumer, topics.dead_letters)
        self._member = SoleMember(consumer, self._partitions)
        self.tally = Tally()

    def run(self, going_on: Callable[[Tally], bool]) -> None:
        """Replay until the end, the limit, or until `going_on`, asked after a slice, says no.

        Raises ReplayError, or the Kafka error of brokers that do not answer or allow it; what was
        acknowledged before is not sent again by the next run.
        """
        if not self._num_partitions:
            raise ReplayError(
                f"there is no topic {self._topics.clicks}: run `nextclick topics ensure`"
            )
        if not self._partitions:
            return
        try:
            self._member.join()
            for tp in self._partitions:
                if not self._replay_partition(tp, going_on):
                    return
        except (NotAloneError, CommitFailedError, RebalanceInProgressError) as error:
            raise ReplayError(
                "another `nextclick dlq replay` is running: wait for its end. If it has just taken "
                f"over from this one, it may send up to {SLICE} letters twice"
            ) from error

    def _replay_partition(self, tp: TopicPartition, going_on: Callable[[Tally], bool]) -> bool:
        """Replay a partition, again from what is committed after each rebalance; False: stop."""
        while True:
            try:
                return self._replay_from_committed(tp, going_on)
            except (IllegalStateError, NoOffsetForPartitionError):
                if self._member.settled:
                    raise
                self._member.regain()

    def _replay_from_committed(self, tp: TopicPartition, going_on: Callable[[Tally], bool]) -> bool:
        position, end = _position(self._consumer, tp)
        for records in slices(self._consumer, tp, position.base, end, max_records=SLICE):
            if not self._member.settled:
                raise IllegalStateError("a rebalance has begun")
            self._replay_slice(tp, records, position)
            full = not self._selection.room(self.tally.chosen.total())
            if not going_on(self.tally) or full:
                return False
        position.finish(end)
        self._commit(tp, position)
        return True

    def _replay_slice(
        self, tp: TopicPartition, records: Iterable[Record], position: ReplayPosition
    ) -> None:
        room = self._selection.room(self.tally.chosen.total())
        steps = steps_of(records, position, self._selection, room)
        if not steps:
            return
        chosen = [step for step in steps if step.verdict == "chosen"]
        acknowledged, cause = self._deliver(chosen)
        left = acknowledged
        for step in steps:
            if step.verdict == "chosen":
                if not left:
                    break
                left -= 1
            enter(step, position, self.tally)
        self._commit(tp, position)
        if acknowledged < len(chosen):
            raise ReplayError(
                f"{len(chosen) - acknowledged} letters were not acknowledged by "
                f"{self._topics.clicks}: {cause!r}. Run it again to go on; some may arrive twice"
            ) from cause

    def _deliver(self, chosen: list[Step]) -> tuple[int, BaseException | None]:
        """Send, flush, check every future; returns how many, from the first, are acknowledged."""
        futures: list[FutureRecordMetadata] = []
        cause: BaseException | None = None
        try:
            try:
                for step in chosen:
                    futures.append(self._send(step))
            finally:
                self._producer.flush(timeout=_TIMEOUT_MS / 1000)
        except KafkaError as error:
            cause = error
        failed = (number for number, future in enumerate(futures) if not future.succeeded())
        acknowledged = next(failed, len(futures))
        if cause is None and acknowledged < len(futures):
            cause = futures[acknowledged].exception
        return acknowledged, cause

    def _send(self, step: Step) -> FutureRecordMetadata:
        letter = step.letter
        return self._producer.send(
            self._topics.clicks,
            value=letter.value,
            key=letter.key,
            headers=replay_headers(step.record, letter.attempt + 1),
            partition=click_partition(step, self._num_partitions),
        )

    def _commit(self, tp: TopicPartition, position: ReplayPosition) -> None:
        offset, metadata = position.encode()
        self._consumer.commit({tp: OffsetAndMetadata(offset, metadata, -1)}, timeout_ms=_TIMEOUT_MS)


def _position(consumer: KafkaConsumer, tp: TopicPartition) -> tuple[ReplayPosition, int]:
    """Return how far the partition is replayed, and its end."""
    first, end = edges(consumer, tp)
    committed = consumer.committed(tp, metadata=True, timeout_ms=_TIMEOUT_MS)
    if committed is None or committed.offset is None or committed.offset > end:
        return ReplayPosition(first), end  # a first run, or the topic was created anew
    position = ReplayPosition.decode(committed.offset, committed.metadata)
    position.finish(first)  # retention took what was before
    return position, end
