"""The worker's loop: poll a batch, answer it, commit it; restore what is new, drop what is gone."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from stream.assignment import Assignment, member_generation
from stream.batch import AtLeastOnce, Outcome, Send
from stream.changelog import MARKER_KEY, encode_marker
from stream.kafka_types import (
    ConsumerRecord,
    KafkaConsumer,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicPartition,
)
from stream.monitor import Health
from stream.positions import starting_positions
from stream.settings import TopicSettings
from worker.answering import Answering, Batch
from worker.ledger import Ledger
from worker.metrics import WorkerMetrics
from worker.refresh import VersionFollower
from worker.restore import Restorer
from worker.settings import WorkerSettings

log = structlog.get_logger(__name__)
CONDITIONS = ("model", "group", "sessions")


@dataclass(frozen=True, slots=True)
class Parts:
    """What a worker is made of; `cli` constructs it, a test may replace any of it."""

    consumer: KafkaConsumer
    committer: AtLeastOnce
    restorer: Restorer
    follower: VersionFollower
    answering: Answering
    metrics: WorkerMetrics
    health: Health


class Worker:
    """Clicks in, recommendations out, at least once; see `reliability` for the protocol."""

    def __init__(self, parts: Parts, settings: WorkerSettings, topics: TopicSettings) -> None:
        self._parts = parts
        self._consumer = parts.consumer
        self._settings = settings
        self._topics = topics
        self._assignment = Assignment(parts.consumer)
        self._ledgers: dict[int, Ledger] = {}
        self._next_offset: dict[TopicPartition, int] = {}
        self._stopping = False
        self._rebalances = 0

    def stop(self) -> None:
        """Ask the loop to end after the batch in hand; safe to call from a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Serve until `stop`, then leave the group.

        1 poll, 2 ask whether the group still counts us in, 3 drop what is gone, 4 answer the
        records of live partitions, 5 restore what is new: last, so that no polled record is lost.
        """
        if self._wait_for_model():
            self._consumer.subscribe([self._topics.clicks], listener=self._assignment)
        while not self._stopping:
            polled = self._poll()
            generation = member_generation(self._consumer)
            self._beat()
            self._drop_gone()
            if generation < 0:
                self._drop_all()
                self._observe()
                continue
            self._parts.answering.swap(self._parts.follower.take())
            records = [r for tp in polled if tp in self._assignment.live for r in polled[tp]]
            if records:
                self._process(records, generation)
            if self._assignment.new:
                self._restore(set(self._assignment.new))
            self._observe()
        self._leave()

    def _wait_for_model(self) -> bool:
        log.info("waiting for a model", name=self._settings.model)
        while not self._stopping:
            self._beat()
            version = self._parts.follower.take(wait_seconds=0.25)
            if version is not None:
                self._parts.answering.swap(version)
                self._parts.health.set("model", True)
                return True
        return False

    def _poll(self) -> dict[TopicPartition, list[ConsumerRecord]]:
        self._parts.answering.clock.start()
        batch = self._settings.batch
        try:
            polled = self._consumer.poll(timeout_ms=batch.max_wait_ms, max_records=batch.max_clicks)
        except NoOffsetForPartitionError:
            # A first start: the restore below decides where to begin, nothing resets silently.
            polled = {}
        except OffsetOutOfRangeError:
            # Retention passed us: start over where `on_gap` says, with the gap in the log.
            self._assignment.new |= self._assignment.live
            self._drop_all()
            polled = {}
        self._parts.answering.clock.lap("poll")
        return polled

    def _process(self, records: list[ConsumerRecord], generation: int) -> None:
        after: dict[TopicPartition, int] = {}
        for record in records:
            after[TopicPartition(record.topic, record.partition)] = record.offset + 1
        before = {tp: self._next_offset[tp] for tp in after}
        batch = self._parts.answering.answer(records, self._ledgers, generation)
        outcome = self._parts.committer.commit(batch.sends, before, after)
        self._parts.answering.clock.lap("commit")
        if outcome is Outcome.KEPT:
            self._keep(batch, records, after)
        else:
            self._parts.metrics.commit_failures.labels(outcome.name.lower()).inc()
            self._parts.metrics.renewals.labels("failure").inc()
            self._give_back(batch, before, outcome)

    def _keep(
        self, batch: Batch, records: list[ConsumerRecord], after: dict[TopicPartition, int]
    ) -> None:
        self._ledgers.update(batch.ledgers)
        self._next_offset.update(after)
        self._parts.answering.keep(batch, records, time.time())

    def _give_back(self, batch: Batch, before: dict[TopicPartition, int], outcome: Outcome) -> None:
        if outcome is Outcome.ROLLED_BACK and not batch.seated.evicted:
            self._parts.answering.roll_back(batch)
            for tp, offset in before.items():
                self._consumer.seek(tp, offset)
            return
        # What was committed is unknown: state comes back from the changelog.
        self._parts.answering.roll_back(batch)
        # The evicted may belong to partitions that have no click in the batch.
        lost = {TopicPartition(self._topics.clicks, p) for p, _, _ in batch.seated.evicted}
        lost |= set(before)
        for tp in lost:
            self._drop(tp)
            self._assignment.live.discard(tp)
        self._consumer.pause(*lost)
        self._assignment.new |= lost

    def _restore(self, partitions: set[TopicPartition]) -> None:
        self._parts.health.set("sessions", False)
        started = time.monotonic()
        self._consumer.pause(*self._consumer.assignment())
        positions = starting_positions(
            self._consumer,
            partitions,
            start_from=self._settings.start_from,
            on_gap=self._settings.on_gap,
        )
        for tp, position in positions.items():
            # Without it every poll below would ask again where to begin, and raise.
            self._consumer.seek(tp, position.offset)
        restored = self._parts.restorer.restore(
            positions,
            self._parts.answering.place,
            between_slices=lambda: self._still_wanted(partitions),
        )
        first = {tp: p.offset for tp, p in positions.items() if not p.committed}
        if restored is None or self._assignment.gone or not self._mark_first_start(first, restored):
            # Revoked meanwhile: drop what was read, the next round starts over with what is left.
            for tp in partitions:
                self._drop(tp)
            self._resume_live()
            return
        for tp, position in positions.items():
            self._ledgers[tp.partition] = restored[tp.partition]
            self._next_offset[tp] = position.offset
        self._assignment.live |= partitions
        self._assignment.new -= partitions
        self._resume_live()
        self._parts.metrics.restore.observe(time.monotonic() - started)
        log.info("sessions restored", partitions=sorted(tp.partition for tp in partitions))

    def _mark_first_start(
        self, first: dict[TopicPartition, int], ledgers: dict[int, Ledger]
    ) -> bool:
        """Write the marker of a group's first start, then commit its offset; tells success.

        From then on "no committed offset" or "no marker" means that somebody removed it.
        """
        if not first:
            return True
        sends = [
            Send(
                *(self._topics.sessions, tp.partition, MARKER_KEY),
                encode_marker(ledgers[tp.partition].marker(-1, "")),
                [],
            )
            for tp in first
        ]
        return self._parts.committer.commit(sends, {}, first) is Outcome.KEPT

    def _still_wanted(self, partitions: set[TopicPartition]) -> bool:
        # Every partition is paused: this poll keeps the membership and returns no record.
        self._consumer.poll(timeout_ms=0)
        self._beat()
        return not self._stopping and not partitions & self._assignment.gone

    def _resume_live(self) -> None:
        # A poll during the restore may have moved live partitions: go back to where each one is.
        live = self._assignment.live & self._consumer.assignment()
        for tp in live:
            self._consumer.seek(tp, self._next_offset[tp])
        self._consumer.resume(*live)
        self._parts.health.set("sessions", not self._assignment.new - live)

    def _drop_gone(self) -> None:
        for tp in self._assignment.take_gone():
            self._drop(tp)

    def _drop_all(self) -> None:
        for tp in set(self._assignment.live):
            self._drop(tp)
        self._assignment.drop_all()

    def _drop(self, tp: TopicPartition) -> None:
        self._parts.answering.sessions.drop(tp.partition)
        self._ledgers.pop(tp.partition, None)
        self._next_offset.pop(tp, None)
        self._parts.metrics.forget_partition(tp.topic, tp.partition)

    def _beat(self) -> None:
        self._parts.health.beat()
        self._parts.metrics.last_poll.set_to_current_time()

    def _observe(self) -> None:
        held = self._consumer.assignment()
        self._parts.health.set("group", member_generation(self._consumer) >= 0)
        self._parts.metrics.assigned.set(len(held))
        self._parts.metrics.sessions.set(len(self._parts.answering.sessions))
        if self._assignment.rebalances != self._rebalances:
            self._parts.metrics.rebalances.labels("assigned").inc(
                self._assignment.rebalances - self._rebalances
            )
            self._rebalances = self._assignment.rebalances
        self._observe_lag(self._assignment.live & held)

    def _observe_lag(self, partitions: Iterable[TopicPartition]) -> None:
        for tp in partitions:
            end = self._consumer.highwater(tp)
            if end is not None:
                lag = max(0, end - self._next_offset[tp])
                last_read = self._ledgers[tp.partition].log_time
                age = max(0.0, time.time() - last_read / 1000) if lag and last_read else 0.0
                self._parts.metrics.lag.labels(tp.topic, tp.partition).set(lag)
                self._parts.metrics.lag_seconds.labels(tp.topic, tp.partition).set(age)

    def _leave(self) -> None:
        """Leave in order: not ready, out of the group, then the producer; every batch is done."""
        for condition in CONDITIONS:
            self._parts.health.set(condition, False)
        self._consumer.close(autocommit=False, timeout_ms=5_000)
        self._parts.committer.close()
        self._parts.follower.close()
        log.info("worker stopped")
