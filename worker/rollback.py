"""Announces, off the hot thread, that the version before the serving one serves again."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from model.manifest import new_version
from stream.announcements import ROLLED_BACK, ModelsTopic, restoring
from stream.kafka_types import KafkaError
from stream.messages import Gate, ModelAnnouncement
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
        if alarm.bad.version == self._given_up:
            return  # it is announced: the follower loads it as soon as it can
        if self._thread is not None and self._thread.is_alive():
            return
        log.error("the serving version is worse", version=alarm.bad.version, why=str(alarm))
        if alarm.frozen:
            self._metrics.rollbacks.labels("frozen").inc()
            log.error("too many rollbacks of late: this one is left to people")
            return
        self._thread = threading.Thread(
            target=self._give_up, args=(alarm,), name="rollback", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Wait for an announcement under way, at most 5 s."""
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _give_up(self, alarm: Alarm) -> None:
        try:
            announced = self._announce(alarm)
        except (KafkaError, ConnectionError) as error:
            self._metrics.rollbacks.labels("failed").inc()
            log.error("rollback not announced, another try follows", error=repr(error))
            return
        self._given_up = alarm.bad.version
        if announced is not None:
            self._metrics.rollbacks.labels("announced").inc()
            log.warning("rolled back", version=announced.version, restores=announced.restores)

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
