"""The worker's loop: poll a batch, answer it, commit it; take over what is new, drop what went."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import chain

import structlog

from stream.assignment import Assignment, Lease, membership
from stream.batch import Outcome
from stream.committer import Committer
from stream.kafka_types import (
    ConsumerGroupMetadata,
    ConsumerRecord,
    FencedInstanceIdError,
    KafkaConsumer,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RetriableError,
    TopicPartition,
)
from stream.monitor import Health, StoppedError
from stream.progress import ProgressWatch
from worker.answering import Answering, Batch
from worker.breaker import CONDITION as DEAD_LETTERS
from worker.breaker import CircuitBreaker
from worker.metrics import WorkerMetrics
from worker.partitions import Partitions
from worker.refresh import VersionFollower
from worker.rollback import Rollbacks
from worker.settings import WorkerSettings
from worker.takeover import Takeover

log = structlog.get_logger(__name__)
_PAUSE_SECONDS = 0.5  # brokers that are away refuse at once
CONDITIONS = ("model", "group", "sessions", DEAD_LETTERS)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a worker is made of; `cli` constructs it, a test may replace any of it."""

    consumer: KafkaConsumer
    committer: Committer
    takeover: Takeover
    follower: VersionFollower
    answering: Answering
    rollbacks: Rollbacks
    breaker: CircuitBreaker
    progress: ProgressWatch
    metrics: WorkerMetrics
    health: Health


class Worker:
    """Clicks in, recommendations out; the committer decides how often each takes effect."""

    def __init__(self, parts: Parts, settings: WorkerSettings, clicks_topic: str) -> None:
        self._parts = parts
        self._consumer = parts.consumer
        self._settings = settings
        self._clicks_topic = clicks_topic
        self._assignment = Assignment(parts.consumer)
        self._lease = Lease(parts.consumer)
        self._partitions = Partitions(parts.answering.sessions, parts.metrics)
        self._rebalances = 0
        self._renewals = 0

    def stop(self) -> None:
        """Ask the loop to end after the batch in hand; safe to call from a signal handler."""
        self._parts.health.stopping = True

    def run(self) -> None:
        """Serve until `stop`, then leave the group."""
        health = self._parts.health
        try:
            if self._wait_for_model():
                self._consumer.subscribe([self._clicks_topic], listener=self._assignment)
            while not health.stopping:
                self._turn()
                self._observe()
        except StoppedError:
            log.info("stopped in a wait for brokers")
        self._leave()

    def _turn(self) -> None:
        """1 poll, 2 ask whether the group counts us in, 3 drop what is gone, 4 answer, 5 take over.

        Taking over what is new comes last, so that no polled record is lost.
        """
        polled = self._poll()
        member = membership(self._consumer)
        self._beat()
        self._parts.health.set("group", member is not None)
        for tp in self._assignment.take_gone():
            self._partitions.drop(tp)
        if member is None:
            self._drop_all()
            return
        if self._lease.fenced:
            raise FencedInstanceIdError("another process has taken this slot's place in the group")
        self._parts.answering.swap(self._parts.follower.take())
        self._parts.answering.try_out(self._parts.follower.on_trial)
        live = {tp: records for tp, records in polled.items() if tp in self._assignment.live}
        if live:
            self._process(live, member)
        if self._assignment.new:
            self._parts.takeover.run(
                self._assignment, self._partitions, self._parts.answering.place, member
            )
        self._parts.progress.check(polled, self._partitions.next_offset, time.monotonic())

    def _wait_for_model(self) -> bool:
        log.info("waiting for a model", name=self._settings.model)
        while not self._parts.health.stopping:
            self._beat()
            version = self._parts.follower.take(wait_seconds=0.25)
            if version is not None:
                self._parts.answering.swap(version)
                self._parts.health.set("model", True)
                return True
        return False

    def _poll(self) -> dict[TopicPartition, list[ConsumerRecord]]:
        self._parts.answering.clock.start()
        if self._parts.breaker.open:
            # Membership and sessions stay; whoever mends the producer restarts the worker.
            self._consumer.pause(*self._consumer.assignment())
        batch = self._settings.batch
        try:
            polled = self._consumer.poll(timeout_ms=batch.max_wait_ms, max_records=batch.max_clicks)
        except NoOffsetForPartitionError:
            # A first start: the takeover decides where to begin, nothing resets silently.
            polled = {}
        except OffsetOutOfRangeError:
            # Retention passed us: start over where `on_gap` says, with the gap in the log.
            self._assignment.new |= self._assignment.live
            self._drop_all()
            polled = {}
        except RetriableError as error:
            # Brokers that go away in the middle of a join; of what was fetched nothing is skipped.
            log.warning("poll failed, it is tried again", error=repr(error))
            time.sleep(_PAUSE_SECONDS)
            self._partitions.go_back(self._consumer, self._assignment.live)
            polled = {}
        self._parts.answering.clock.lap("poll")
        return polled

    def _process(
        self, polled: dict[TopicPartition, list[ConsumerRecord]], member: ConsumerGroupMetadata
    ) -> None:
        before = {tp: self._partitions.next_offset[tp] for tp in polled}
        after = {tp: records[-1].offset + 1 for tp, records in polled.items()}
        records = list(chain.from_iterable(polled.values()))
        answering = self._parts.answering
        batch = answering.answer(records, self._partitions.ledgers, member.generation_id)
        outcome = self._parts.committer.commit(batch.sends, before, after, member)
        answering.clock.lap("commit")
        if outcome is Outcome.KEPT:
            self._partitions.move(after, batch.ledgers)
            answering.keep(batch, records, time.time())
            if (alarm := answering.alarm()) is not None:
                self._parts.rollbacks.request(alarm)
            if (verdict := answering.canary_verdict()) is not None:
                self._parts.rollbacks.withdraw(verdict)
            self._parts.breaker.count(batch.first_outcomes, time.monotonic())
        else:
            self._parts.metrics.commit_failures.labels(outcome.name.lower()).inc()
            self._give_back(batch, before, outcome)

    def _give_back(self, batch: Batch, before: dict[TopicPartition, int], outcome: Outcome) -> None:
        self._parts.answering.roll_back(batch)
        if outcome is Outcome.ROLLED_BACK and not batch.seated.evicted:
            for tp, offset in before.items():
                self._consumer.seek(tp, offset)
            return
        # What was committed is unknown: state comes back from the changelog. The evicted may
        # belong to partitions that have no click in the batch.
        lost = {TopicPartition(self._clicks_topic, p) for p, _, _ in batch.seated.evicted}
        lost |= set(before)
        for tp in lost:
            self._partitions.drop(tp)
            self._assignment.live.discard(tp)
        self._consumer.pause(*lost)
        self._assignment.new |= lost

    def _drop_all(self) -> None:
        for tp in set(self._assignment.live):
            self._partitions.drop(tp)
        self._assignment.drop_all()

    def _beat(self) -> None:
        self._parts.health.beat()
        self._parts.metrics.last_poll.set_to_current_time()

    def _observe(self) -> None:
        metrics = self._parts.metrics
        held = self._consumer.assignment()
        metrics.assigned.set(len(held))
        metrics.sessions.set(len(self._parts.answering.sessions))
        metrics.rebalances.labels("assigned").inc(self._assignment.rebalances - self._rebalances)
        self._rebalances = self._assignment.rebalances
        metrics.renewals.inc(self._parts.committer.renewals - self._renewals)
        self._renewals = self._parts.committer.renewals
        self._partitions.observe_lag(self._consumer, self._assignment.live & held)

    def _leave(self) -> None:
        """Leave in order: not ready, out of the group, then the producer; every batch is done."""
        for condition in CONDITIONS:
            self._parts.health.set(condition, False)
        self._consumer.close(autocommit=False, timeout_ms=5_000)
        self._parts.committer.close()
        self._parts.follower.close()
        self._parts.rollbacks.close()
        log.info("worker stopped")
