"""One seed of `benchmarks/kills.py`: workers that live until a planned death, and what remains."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.chaos import crashing
from benchmarks.chaos.invariants import Findings, examine, exits_as_specified, within
from benchmarks.chaos.load import Load, Witness
from benchmarks.chaos.nursery import Nursery
from benchmarks.chaos.processes import WorkerProcess
from benchmarks.chaos.supervisor import Exit, Supervisor
from benchmarks.chaos.system import Gauge, Reading, System, for_slot, make_settings
from model.bundle import Published

SESSION_SECONDS = 1.2
PARTITIONS = 2
NUM_ITEMS = 120
_NUM_USERS = 50
_CLICKS_PER_SECOND = 400.0
_REACH_SECONDS = 20.0
_ALL_DIED_SECONDS = 90.0
_QUIET_SECONDS = 60.0
_STOP_SECONDS = 10.0
_SWAP_SECONDS = 0.6
_SERVES = "sessions restored"
_SLICE_BYTES = 8_192  # of a fetch: the changelog comes back in several slices
# A fail-point strikes at its n-th time, drawn from 1 to this; from 2 where 1 is before the service.
_HIGHEST = {
    "after_poll": 15,
    "mid_send": 400,
    "after_flush": 15,
    "after_offsets": 15,
    "before_commit_reply": 15,
    "after_commit": 15,
    "in_restore": 2,
    "in_swap": 3,
    "in_renew": 10,
}
_STATIC_SHARE = 1 / 3
_FROM_TWO = ("in_swap", "in_renew")


@dataclass(frozen=True)
class Death:
    """How one process ends: at a fail-point, or by kill -9 so long after its start."""

    fail_point: str = ""
    after_seconds: float = _REACH_SECONDS


@dataclass(frozen=True)
class Plan:
    """What happens in one seed: each slot's processes die one after the other as listed."""

    deaths: dict[str, list[Death]]
    static_members: bool


@dataclass
class Outcome:
    """What one seed has shown."""

    seed: int
    guarantee: str
    plan: Plan
    findings: Findings
    reached: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    kills: int = 0
    recovery_seconds: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Stage:
    """What all seeds share."""

    bootstrap_servers: str
    store_url: str
    versions: Sequence[Published]
    nursery: Nursery
    directory: Path
    max_recovery_seconds: float = SESSION_SECONDS + 5.0


def make_plan(seed: int) -> Plan:
    """Draw a plan: two fail-points and a kill -9 at random, in one slot or spread over two.

    Seeds that follow each other take their turns at the fail-points.
    """
    rng = np.random.default_rng(seed)
    names = crashing.NAMES
    further = 1 + seed // len(names) % (len(names) - 1)
    points = [names[seed % len(names)], names[(seed + further) % len(names)]]
    deaths = [Death(f"{name}:{_nth(name, rng)}") for name in points]
    deaths.append(Death(after_seconds=float(rng.uniform(0.3, 2.5))))
    rng.shuffle(deaths)
    deaths.sort(key=lambda death: death.fail_point.startswith("in_restore"))  # needs a changelog
    slots = rng.choice([1, 2])
    shared = {name: deaths[i::slots] for i, name in enumerate(("a", "b")[:slots])}
    return Plan(shared, static_members=bool(rng.random() < _STATIC_SHARE))


def _nth(name: str, rng: np.random.Generator) -> int:
    return int(rng.integers(1 + (name in _FROM_TWO), _HIGHEST[name] + 1))


def run_seed(seed: int, guarantee: str, stage: Stage) -> Outcome:
    """Let a seed's workers live and die under load, then examine what is in the topics."""
    started = time.monotonic()
    plan = make_plan(seed)
    prefix = f"k{seed}-{guarantee.replace('_', '-')}-{time.time_ns() % 10**9}-"
    settings = make_settings(
        stage.bootstrap_servers,
        prefix,
        stage.store_url,
        kafka={
            "session_timeout_ms": int(1000 * SESSION_SECONDS),
            "consumer": {"max_partition_fetch_bytes": _SLICE_BYTES},
        },
        topics={"partitions": PARTITIONS},
        processing={"guarantee": guarantee, "static_members": plan.static_members, "slot": "x"},
    )
    outcome = Outcome(seed, guarantee, plan, Findings())
    with System(settings) as system:
        system.announce(stage.versions[0])
        gauge = Gauge(settings, every_seconds=0.05)
        witness = Witness(settings)
        load = Load(settings, seed=seed, per_second=_CLICKS_PER_SECOND,
                    num_users=_NUM_USERS, num_items=NUM_ITEMS)  # fmt: skip
        lives = _Lives(system, stage, plan, stage.directory / prefix, seed)
        try:
            outcome.findings.violations += lives.run(load, gauge)
        finally:
            lives.supervisor.end_all()
            load.stop()
            gauge.close()
            seen = witness.finish(_QUIET_SECONDS)
        _judge(outcome, lives, gauge.readings, stage.max_recovery_seconds)
        if witness.error is not None:
            outcome.findings.violations.append(f"the reader failed: {witness.error!r}")
        early = outcome.findings.violations
        outcome.findings = examine(settings, seen, load.sent)
        outcome.findings.violations += early
    outcome.seconds = time.monotonic() - started
    return outcome


class _Lives:
    """The slots of one seed, from their first process to the clean end of the last."""

    def __init__(
        self, system: System, stage: Stage, plan: Plan, directory: Path, seed: int
    ) -> None:
        self._system = system
        self._stage = stage
        self.plan = plan
        self._directory = directory
        self._next_version = 1
        self._next_swap = 0.0
        self.supervisor = Supervisor(
            self._start, seed=seed, session_timeout_seconds=SESSION_SECONDS
        )

    def run(self, load: Load, gauge: Gauge) -> list[str]:
        """Run until every planned death has happened and every click is answered."""
        for slot in self.plan.deaths:
            self.supervisor.add(slot)
        if not within(self._all_died, _ALL_DIED_SECONDS, self._tick):
            return ["not every worker lived to its planned death (I7)"]
        sent = load.stop()
        if not within(lambda: _answered(gauge.latest, sent), _QUIET_SECONDS, self._tick):
            return [f"lag {gauge.latest.lag} after {_QUIET_SECONDS:g} s without a fault (I7)"]
        return list(self._stop_workers())

    def _start(self, slot: str, number: int) -> WorkerProcess:
        death = self._death(slot, number)
        return WorkerProcess(
            for_slot(self._system.settings, slot),
            self._directory / f"{slot}{number}",
            fail_point="" if death is None else death.fail_point,
            spawn=self._stage.nursery,
        )

    def _death(self, slot: str, number: int) -> Death | None:
        deaths = self.plan.deaths[slot]
        return deaths[number - 1] if number <= len(deaths) else None

    def _tick(self) -> None:
        self.supervisor.tick()
        now = time.monotonic()
        for slot, number, process in self.supervisor.running():
            deaths = self.plan.deaths[slot]
            if (
                number <= len(deaths)
                and self.supervisor.age(slot) > deaths[number - 1].after_seconds
            ):
                process.kill()
            swaps = process.fail_point.startswith("in_swap") and _SERVES in process.text
            if swaps and now > self._next_swap:
                self._next_swap = now + _SWAP_SECONDS
                self._swap()

    def _swap(self) -> None:
        if self._next_version < len(self._stage.versions):
            self._system.announce(self._stage.versions[self._next_version])
            self._next_version += 1

    def _all_died(self) -> bool:
        return all(
            self.supervisor.starts(slot) > len(deaths) for slot, deaths in self.plan.deaths.items()
        )

    def _stop_workers(self) -> Iterator[str]:
        for slot in self.plan.deaths:
            process = self.supervisor.release(slot)
            if process is not None:
                process.terminate()
        if not within(self._all_ended, _STOP_SECONDS, self.supervisor.tick):
            yield f"a worker did not end within {_STOP_SECONDS:g} s of SIGTERM (I10)"

    def _all_ended(self) -> bool:
        return not any(True for _ in self.supervisor.running())


def _answered(reading: Reading, sent: int) -> bool:
    return sum(reading.ends.values()) >= sent and reading.lag == 0


def _judge(
    outcome: Outcome, lives: _Lives, readings: list[Reading], max_recovery_seconds: float
) -> None:
    deadly = [end for end in lives.supervisor.exits if end.code in (-9, crashing.EXIT_CODE)]
    outcome.kills = len(deadly)
    for end in deadly:
        if end.process.fail_point:
            reached = end.code == crashing.EXIT_CODE
            (outcome.reached if reached else outcome.missed).append(end.process.fail_point)
    outcome.findings.violations += exits_as_specified(lives.supervisor.exits)
    outcome.recovery_seconds = max(recoveries(deadly, readings), default=0.0)
    if outcome.recovery_seconds > max_recovery_seconds:
        outcome.findings.violations.append(
            f"no progress for {outcome.recovery_seconds:.1f} s after a kill (I7)"
        )


def recoveries(exits: list[Exit], readings: list[Reading]) -> Iterator[float]:
    """Yield, for each exit, the seconds until every partition went on or had nothing to do.

    An exit that is followed by another before that is left out: the last one counts.
    """
    deaths = sorted(end.at for end in exits)
    for death, following in zip(deaths, (*deaths[1:], float("inf")), strict=False):
        earlier = [r for r in readings if r.at <= death]
        before = earlier[-1].committed if earlier else {}
        for reading in readings:
            if reading.at >= following:
                break
            if reading.at > death and _went_on(reading, before):
                yield reading.at - death
                break


def _went_on(reading: Reading, before: dict[int, int]) -> bool:
    return all(
        offset > before.get(p, 0) or offset >= reading.ends[p]
        for p, offset in reading.committed.items()
    )
