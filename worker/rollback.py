"""Announces, off the hot thread, that a version serves or is tried no more."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from model.manifest import new_version
from stream.announcements import ROLLED_BACK, ModelsTopic, restoring, withdrawn
from stream.kafka_types import KafkaError
from stream.messages import Gate, ModelAnnouncement
from worker.canary import Verdict
from worker.guard import Alarm
from worker.metrics import WorkerMetrics

log = structlog.get_logger(__name__)


class Rollbacks:
    """Answers alarms, one at a time; never raises, since the worker answers clicks all the same.

    A bad version is given up once. Where that fails the next alarm tries again. Several workers may
    do it at the same moment: a version that is restored twice is loaded once.
    """

    def __init__(
        self, topic: ModelsTopic, metrics: WorkerMetrics, wall_ms: Callable[[], int]
    ) -> None:
        self._topic = topic
        self._metrics = metrics
        self._wall_ms = wall_ms
        self._given_up: str | None = None
        self._thread: threading.Thread | None = None

    def request(self, alarm: Alarm) -> None:
        """Announce what an alarm asks for; returns at once."""
        if alarm.bad.version == self._given_up or self._is_busy:
            return  # once it is announced, the follower loads it as soon as it can
        log.error("the serving version is worse", version=alarm.bad.version, why=str(alarm))
        if alarm.frozen:
            self._metrics.rollbacks.labels("frozen").inc()
            log.error("too many rollbacks of late: this one is left to people")
            return
        self._start(alarm.bad.version, "announced", lambda: self._announce(alarm))

    def withdraw(self, verdict: Verdict) -> None:
        """Announce the end of a trial; returns at once."""
        trial = verdict.announcement
        if trial.version == self._given_up or self._is_busy:
            return
        log.error("the version on trial is worse", version=trial.version, why=str(verdict))
        self._start(trial.version, "withdrawn", lambda: self._withdraw(verdict))

    def close(self) -> None:
        """Wait for an announcement under way, at most 5 s."""
        if self._thread is not None:
            self._thread.join(timeout=5)

    @property
    def _is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _start(
        self, version: str, outcome: str, announce: Callable[[], ModelAnnouncement | None]
    ) -> None:
        self._thread = threading.Thread(
            target=self._give_up, args=(version, outcome, announce), name="rollback", daemon=True
        )
        self._thread.start()

    def _give_up(
        self, version: str, outcome: str, announce: Callable[[], ModelAnnouncement | None]
    ) -> None:
        try:
            announced = announce()
        except (KafkaError, ConnectionError) as error:
            self._metrics.rollbacks.labels("failed").inc()
            log.error("rollback not announced, another try follows", error=repr(error))
            return
        self._given_up = version
        if announced is not None:
            self._metrics.rollbacks.labels(outcome).inc()
            log.warning("given up", version=version, restores=announced.restores, how=outcome)

    def _withdraw(self, verdict: Verdict) -> ModelAnnouncement | None:
        """Announce unless another version is tried by now; returns what was sent."""
        trial = verdict.announcement
        newest = self._topic.latest(trial.name, "canary")
        if newest is None or newest.version != trial.version or not newest.share:
            return None
        announcement = withdrawn(newest, str(verdict))
        self._topic.announce(announcement)
        return announcement

    def _announce(self, alarm: Alarm) -> ModelAnnouncement | None:
        """Announce unless somebody has announced another version since; returns what was sent."""
        newest = self._topic.latest(alarm.bad.name)
        if newest is not None and newest.version != alarm.bad.version:
            return None
        content = alarm.good.version.partition("Z-")[2]
        announcement = restoring(
            alarm.good,
            new_version(self._wall_ms(), content, after=alarm.bad.version),
            Gate(verdict=ROLLED_BACK, reason=str(alarm)),
        )
        self._topic.announce(announcement)
        return announcement
