"""The streaming phase of a demo: publish clicks, keep the score, show it, wait for the answers."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING

from cli.live import Snapshot, View
from cli.traffic import held_back

if TYPE_CHECKING:
    from cli.demo_roles import RoleProcess, Roles
    from cli.observer import Observer
    from cli.scoreboard import Scoreboard
    from stream.publisher import ClickPublisher, PacedClick

_POLL_MS = 100
_MAX_WAITING = 10_000
_DRAIN_SECONDS = 60.0
_PUBLISH_END_SECONDS = 60.0
_RATE_SECONDS = 10.0
_VERDICT_SECONDS = 3.0
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class ClickThread:
    """Publishes in the background until it is stopped or has nothing left."""

    def __init__(
        self, publisher: ClickPublisher, clicks: Iterable[PacedClick], stop: Event
    ) -> None:
        self._publisher = publisher
        self._clicks = clicks
        self._stop = stop
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="clicks", daemon=True)

    @property
    def running(self) -> bool:
        """Whether clicks are still to come."""
        return self._thread.is_alive()

    @property
    def published(self) -> int:
        """Clicks that the topic has, once `finish` has returned."""
        return self._publisher.published

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self) -> None:
        """Stop, and wait until every click is acknowledged; raises PublishError if one is not."""
        self._stop.set()
        self._thread.join(_PUBLISH_END_SECONDS)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        from stream.publisher import PublishError, publish_paced

        try:
            publish_paced(
                self._publisher, self._clicks, start_ms=int(time.time() * 1_000), stop=self._stop
            )
            self._publisher.flush()
        except PublishError as error:
            self._error = error


@dataclass
class Streaming:
    """What the streaming phase works with."""

    publisher: ClickPublisher
    observer: Observer
    board: Scoreboard
    roles: Roles
    trainer: RoleProcess
    view: View
    _started: float = field(default=0.0, init=False)
    _shown_at: float = field(default=0.0, init=False)
    _verdicts: str = field(default="", init=False)
    _verdicts_at: float = field(default=0.0, init=False)
    _counted: deque[tuple[float, int]] = field(default_factory=deque, init=False)

    def run(self, clicks: Iterable[PacedClick], stop: Event, seconds: float | None) -> int:
        """Publish until the seconds are over, `stop` is set or the clicks are; return how many.

        Then wait, within a bound, until each is answered. Raises RoleError when a process ends.
        """
        self._started = time.monotonic()
        paced = held_back(clicks, lambda: self.board.num_waiting, _MAX_WAITING, stop)
        thread = ClickThread(self.publisher, paced, stop)
        thread.start()
        with self.view:
            try:
                while thread.running and not stop.is_set():
                    self._turn()
                    if seconds is not None and time.monotonic() - self._started >= seconds:
                        stop.set()
            finally:
                thread.finish()
            self._drain(thread.published)
        return thread.published

    def _drain(self, published: int) -> None:
        deadline = time.monotonic() + _DRAIN_SECONDS
        while self.board.clicks < published or self.board.num_waiting:
            self._turn()
            if time.monotonic() > deadline:
                return  # the ledger will name the clicks

    def _turn(self) -> None:
        self.observer.poll(_POLL_MS)
        self.roles.check()
        now = time.monotonic()
        if now - self._shown_at >= self.view.every_seconds:
            self._shown_at = now
            self.view.show(self._snapshot(now))

    def _snapshot(self, now: float) -> Snapshot:
        board = self.board
        announced = self.observer.announced
        age_seconds = time.time() - announced.created_ms / 1_000 if announced else 0.0
        return Snapshot(
            seconds=now - self._started,
            clicks=board.clicks,
            clicks_per_second=self._rate(now),
            p50_ms=board.latencies.recent_percentile(0.5),
            p99_ms=board.latencies.recent_percentile(0.99),
            waiting=board.waiting_by_partition(),
            rates=board.hit_rates.recent(),
            version=announced.version if announced else "",
            version_age_seconds=age_seconds,
            num_versions=len(board.versions),
            verdicts=self._gate(now),
            glimpses=board.glimpses,
        )

    def _rate(self, now: float) -> float:
        self._counted.append((now, self.board.clicks))
        while now - self._counted[0][0] > _RATE_SECONDS:
            self._counted.popleft()
        then, before = self._counted[0]
        return (self.board.clicks - before) / (now - then) if now > then else 0.0

    def _gate(self, now: float) -> str:
        if now - self._verdicts_at >= _VERDICT_SECONDS:
            self._verdicts_at = now
            found = self.trainer.samples("nextclick_trainer_gate_verdicts_total")
            self._verdicts = ", ".join(_verdict(labels, n) for labels, n in sorted(found.items()))
        return self._verdicts


def _verdict(labels: str, count: float) -> str:
    named = dict(_LABEL.findall(labels))
    reason = f" ({named['reason']})" if named.get("reason") else ""
    return f"{named.get('verdict')}{reason} {count:.0f}"
