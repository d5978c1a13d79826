"""Take newly assigned partitions over: where they begin, their sessions, a first start's marker.

It knows the order of these steps; what is read and how it is checked is the restorer's business.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from stream.assignment import Assignment
from stream.batch import Outcome, Send
from stream.changelog import MARKER_KEY, Entry, encode_marker
from stream.committer import Committer
from stream.kafka_types import (
    ConsumerGroupMetadata,
    KafkaConsumer,
    RetriableError,
    TopicPartition,
)
from stream.monitor import Health
from stream.positions import Position, starting_positions
from stream.settings import TopicSettings
from stream.topics import TopicMismatchError
from worker.ledger import Ledger
from worker.metrics import WorkerMetrics
from worker.partitions import Partitions
from worker.restore import Restorer
from worker.settings import WorkerSettings

log = structlog.get_logger(__name__)

_ANSWER_MS = 10_000
_PAUSE_SECONDS = 0.5  # brokers that are away refuse at once


@dataclass(frozen=True, slots=True)
class Takeover:
    """Bring new partitions to life, or leave them as they are and be called again."""

    consumer: KafkaConsumer
    restorer: Restorer
    committer: Committer
    settings: WorkerSettings
    topics: TopicSettings
    guarantee: str
    health: Health
    metrics: WorkerMetrics

    def run(
        self,
        assignment: Assignment,
        partitions: Partitions,
        place: Callable[[Entry], None],
        member: ConsumerGroupMetadata,
    ) -> None:
        """Take over what is new in `assignment`; brokers that do not answer are asked next time.

        Raises StateMismatchError and its kind when only an operator can say how to go on, and
        TopicMismatchError when the clicks topic has got more partitions.
        """
        new = set(assignment.new)
        self._require_known(new)
        self.health.set("sessions", False)
        started = time.monotonic()
        try:
            taken = self._restore(new, assignment, place, member)
        except RetriableError as error:
            log.warning("restore failed, it starts over", error=repr(error))
            time.sleep(_PAUSE_SECONDS)
            taken = None
        if taken is None:
            # Drop what was read; the next round starts over with what is left.
            for tp in new:
                partitions.drop(tp)
        else:
            for tp, (position, ledger) in taken.items():
                partitions.take(tp, position.offset, ledger)
            assignment.live |= new
            assignment.new -= new
            self.metrics.restore.observe(time.monotonic() - started)
            gc.collect()  # readers of the restore are cycles with megabytes of buffers
            log.info("sessions restored", partitions=sorted(tp.partition for tp in new))
        self._resume_live(assignment, partitions)

    def _require_known(self, new: set[TopicPartition]) -> None:
        # Users have moved to other partitions than their sessions: only a new changelog helps.
        unknown = sorted(tp.partition for tp in new if tp.partition >= self.topics.partitions)
        if unknown:
            raise TopicMismatchError(
                f"topic {self.topics.clicks}: has partitions {unknown}, but topics.partitions = "
                f"{self.topics.partitions}. Partitions cannot be added to a running system; start "
                "one on new topics"
            )

    def _restore(
        self,
        new: set[TopicPartition],
        assignment: Assignment,
        place: Callable[[Entry], None],
        member: ConsumerGroupMetadata,
    ) -> dict[TopicPartition, tuple[Position, Ledger]] | None:
        """Return where each partition begins with its ledger; None when it was not to be."""
        self.consumer.pause(*self.consumer.assignment())
        positions = starting_positions(
            self.consumer,
            new,
            start_from=self.settings.start_from,
            on_gap=self.settings.on_gap,
        )
        for tp, position in positions.items():
            # Without it every poll below would ask again where to begin, and raise.
            self.consumer.seek(tp, position.offset)
        ledgers = self.restorer.restore(
            positions,
            place,
            between_slices=lambda: self._still_wanted(new, assignment),
            unmoved=lambda: self._unmoved(positions),
        )
        if ledgers is None or assignment.gone or not self._mark(positions, ledgers, member):
            return None
        return {tp: (position, ledgers[tp.partition]) for tp, position in positions.items()}

    def _mark(
        self,
        positions: dict[TopicPartition, Position],
        ledgers: dict[int, Ledger],
        member: ConsumerGroupMetadata,
    ) -> bool:
        """Write the markers that the changelog lacks, with their offsets; tells success.

        That is at a group's first start, after a gap, and when a mismatch was accepted. From a
        first start on, "no committed offset" or "no marker" means that somebody removed it.
        """
        new = {tp: p.offset for tp, p in positions.items() if not ledgers[tp.partition].on_record}
        if not new:
            return True
        sends = [
            Send(
                *(self.topics.sessions, tp.partition, MARKER_KEY),
                encode_marker(ledgers[tp.partition].marker(-1, "", self.guarantee)),
                [],
            )
            for tp in new
        ]
        return self.committer.commit(sends, {}, new, member) is Outcome.KEPT

    def _unmoved(self, positions: dict[TopicPartition, Position]) -> bool:
        """Whether the group's offsets are still those that the positions were made of."""
        return all(
            self.consumer.committed(tp, timeout_ms=_ANSWER_MS)
            == (position.offset - position.gap if position.committed else None)
            for tp, position in positions.items()
        )

    def _still_wanted(self, new: set[TopicPartition], assignment: Assignment) -> bool:
        # Every partition is paused: this poll keeps the membership and returns no record.
        self.consumer.poll(timeout_ms=0)
        self.health.beat()
        return not self.health.stopping and not new & assignment.gone

    def _resume_live(self, assignment: Assignment, partitions: Partitions) -> None:
        # A poll during the restore may have moved live partitions: go back to where each one is.
        live = partitions.go_back(self.consumer, assignment.live)
        self.consumer.resume(*live)
        self.health.set("sessions", not assignment.new - live)
