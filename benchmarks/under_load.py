"""One application under load: worker slots, clicks, a reader beside them; it injects no fault.

with Application(stage, settings, seed=1, per_second=200) as application:
    application.scale(["a", "b"])
    application.until(application.serves, 60, "every partition is answered")
    ...                                   # whatever goes wrong
    findings = application.finish()       # every click answered, every worker stopped, judged
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos.invariants import Findings, examine, exits_as_specified, within
from benchmarks.chaos.load import Load, Witness
from benchmarks.chaos.nursery import Nursery
from benchmarks.chaos.processes import WorkerProcess
from benchmarks.chaos.supervisor import Exit, Supervisor
from benchmarks.chaos.system import Gauge, Reading, System, for_slot
from cli.settings import Settings
from model.bundle import Published

NUM_ITEMS = 120
_NUM_USERS = 80
_GAUGE_SECONDS = 0.05
_QUIET_SECONDS = 90.0
_STOP_SECONDS = 15.0
_UP = "waiting for a model"  # before that a SIGTERM ends a worker as any other process
_UP_SECONDS = 20.0


class NotReachedError(Exception):
    """What had to come did not come in time; the message says what."""


@dataclass(frozen=True)
class Stage:
    """What applications share: brokers, a stored version, where workers come from and live."""

    bootstrap_servers: str
    store_url: str
    published: Published
    nursery: Nursery
    directory: Path


class Application:
    """Topics, worker slots under a supervisor, load, a witness and a gauge."""

    def __init__(self, stage: Stage, settings: Settings, *, seed: int, per_second: float) -> None:
        self.settings = settings
        self._stage = stage
        self._seed = seed
        self._per_second = per_second
        self._system = System(settings)
        self._fail_points: dict[str, str] = {}
        self._leaving: list[WorkerProcess] = []
        self.supervisor = Supervisor(
            self._start,
            seed=seed,
            session_timeout_seconds=settings.kafka.session_timeout_ms / 1000,
        )

    def __enter__(self) -> Application:
        self._system.__enter__()
        self._system.announce(self._stage.published)
        self.gauge = Gauge(self.settings, every_seconds=_GAUGE_SECONDS)
        self.witness = Witness(self.settings)
        self.load = Load(
            self.settings,
            seed=self._seed,
            per_second=self._per_second,
            num_users=_NUM_USERS,
            num_items=NUM_ITEMS,
        )
        return self

    def __exit__(self, *error: object) -> None:
        self.supervisor.end_all()
        for process in self._leaving:
            if process.running:
                process.kill()
        self.load.stop()
        self.witness.finish(0.0)
        self.gauge.close()
        self._system.__exit__(*error)

    @property
    def slots(self) -> list[str]:
        """The slots that have a running process."""
        return [name for name, _, _ in self.supervisor.running()]

    @property
    def exits(self) -> list[Exit]:
        """How processes have ended so far."""
        return self.supervisor.exits

    def plant(self, slot: str, fail_point: str) -> None:
        """Give the slot's next process a fail-point (benchmarks/chaos/crashing.py)."""
        self._fail_points[slot] = fail_point

    def scale(self, slots: Iterable[str]) -> None:
        """Have exactly these slots run; the others are asked to stop."""
        wanted = set(slots)
        for name in set(self.slots) - wanted:
            self.stop(name)
        for name in sorted(wanted - set(self.slots)):
            self.supervisor.add(name)

    def stop(self, slot: str) -> None:
        """Ask the slot's process to stop, as soon as it can be asked, and do not start another."""
        process = self.supervisor.release(slot)
        if process is not None:
            self._await_up(process)
            process.terminate()

    def process(self, slot: str) -> WorkerProcess:
        """Return the running process of a slot."""
        process = self.supervisor.process(slot)
        assert process is not None
        return process

    def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait, with the supervisor at work; raises NotReachedError after so many seconds."""
        if not within(condition, seconds, self.supervisor.tick):
            raise NotReachedError(f"after {seconds:g} s: {what}; {self._standing()}")

    def run_for(self, seconds: float) -> None:
        """Let time pass, with the supervisor at work."""
        within(lambda: False, seconds, self.supervisor.tick)

    def serves(self) -> bool:
        """Whether every partition has answers."""
        return self.went_on(Reading(0.0, {}, {}))

    def went_on(self, since: Reading) -> bool:
        """Whether every partition has more answers than in an earlier reading."""
        latest = self.gauge.latest
        return len(latest.committed) == self.settings.topics.partitions and all(
            offset > since.committed.get(p, 0) for p, offset in latest.committed.items()
        )

    def finish(self) -> Findings:
        """End the load, wait until every click is answered, stop the workers, and judge."""
        sent = self.load.stop()
        early = []
        if not within(lambda: self._answered(sent), _QUIET_SECONDS, self.supervisor.tick):
            early.append(f"lag after {_QUIET_SECONDS:g} s without a fault (I7): {self._standing()}")
        for slot in self.slots:
            self.stop(slot)
        if not within(lambda: not self.slots, _STOP_SECONDS, self.supervisor.tick):
            early.append(f"workers {self.slots} did not end within {_STOP_SECONDS:g} s (I10)")
        seen = self.witness.finish(_QUIET_SECONDS)
        if self.witness.error is not None:
            early.append(f"the reader failed: {self.witness.error!r}")
        findings = examine(self.settings, seen, sent)
        findings.violations = early + exits_as_specified(self.exits) + findings.violations
        return findings

    def pauses(self, since: float, *, least: float) -> list[float]:
        """Return, per partition, the seconds from a moment until its answers moved again.

        A partition counts from its longest pause that ended after `since` (monotonic); pauses
        below `least` seconds are the rhythm of batches, and count as none.
        """
        longest = [self._longest_pause(p, since) for p in range(self.settings.topics.partitions)]
        return [end - since if length >= least else 0.0 for length, end in longest]

    def longest_pause(self, since: float) -> float:
        """Return for how many seconds at most some partition had no new answer since a moment."""
        partitions = range(self.settings.topics.partitions)
        return max(self._longest_pause(p, since)[0] for p in partitions)

    def _longest_pause(self, partition: int, since: float) -> tuple[float, float]:
        """Return the length and the end of the longest pause that ended after a moment."""
        longest, moved_at, reached = (0.0, since), since, -1
        for reading in self.gauge.readings:
            offset = reading.committed.get(partition, 0)
            if offset > reached:
                if reading.at > since:
                    longest = max(longest, (reading.at - moved_at, reading.at))
                moved_at, reached = reading.at, offset
        return longest

    def _await_up(self, process: WorkerProcess) -> None:
        def up() -> bool:
            return _UP in process.text or not process.running

        within(up, _UP_SECONDS, self.supervisor.tick)

    def _answered(self, sent: int) -> bool:
        latest = self.gauge.latest
        return sum(latest.ends.values()) >= sent and latest.lag == 0

    def _standing(self) -> str:
        latest = self.gauge.latest
        age = time.monotonic() - latest.at
        last_words = [
            f"{name}: {' | '.join(process.text.strip().splitlines()[-2:])}"
            for name, _, process in self.supervisor.running()
        ]
        return f"{age:.1f} s ago {latest.committed} of {latest.ends}; {'; '.join(last_words)}"

    def _start(self, slot: str, number: int) -> WorkerProcess:
        prefix = self.settings.kafka.app
        return WorkerProcess(
            for_slot(self.settings, slot),
            self._stage.directory / prefix / f"{slot}{number}",
            fail_point=self._fail_points.pop(slot, ""),
            spawn=self._stage.nursery,
        )
