"""One seed of `benchmarks/kills.py`: workers that live until a planned death, and what remains."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.chaos import crashing
from benchmarks.chaos.invariants import Findings
from benchmarks.chaos.supervisor import Exit
from benchmarks.chaos.system import Reading, System, make_settings
from benchmarks.under_load import Application, NotReachedError, Stage
from cli.settings import Settings
from model.bundle import Published

SESSION_SECONDS = 1.2
PARTITIONS = 2
_CLICKS_PER_SECOND = 400.0
_REACH_SECONDS = 20.0
_ALL_DIED_SECONDS = 90.0
_SWAP_SECONDS = 0.6
_SERVES = "sessions restored"
# A fail-point strikes at its n-th time, drawn from 1 to this; from 2 where 1 is before the service.
_HIGHEST = {
    "after_poll": 15,
    "mid_send": 400,
    "after_flush": 15,
    "after_offsets": 15,
    "before_commit_reply": 15,
    "after_commit": 15,
    "in_restore": 1,
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


def run_seed(
    seed: int,
    guarantee: str,
    stage: Stage,
    *,
    versions: Sequence[Published],
    max_recovery_seconds: float = SESSION_SECONDS + 5.0,
) -> Outcome:
    """Let a seed's workers live and die under load, then examine what is in the topics.

    `versions` are swapped to where the plan says so.
    """
    started = time.monotonic()
    plan = make_plan(seed)
    settings = _settings(seed, guarantee, plan, stage)
    early = []
    with (
        Application(stage, settings, seed=seed, per_second=_CLICKS_PER_SECOND) as app,
        System(settings) as announcer,
    ):
        lives = _Lives(app, plan, announcer, versions)
        try:
            lives.run()
        except NotReachedError as error:
            early.append(f"{error} (I7)")
        findings = app.finish()
        findings.violations = early + findings.violations
        outcome = Outcome(seed, guarantee, plan, findings)
        _judge(outcome, app, max_recovery_seconds)
    outcome.seconds = time.monotonic() - started
    return outcome


def _settings(seed: int, guarantee: str, plan: Plan, stage: Stage) -> Settings:
    return make_settings(
        stage.bootstrap_servers,
        f"k{seed}-{guarantee.replace('_', '-')}-{time.time_ns() % 10**9}-",
        stage.store_url,
        kafka={"session_timeout_ms": int(1000 * SESSION_SECONDS)},
        topics={"partitions": PARTITIONS},
        processing={"guarantee": guarantee, "static_members": plan.static_members, "slot": "x"},
    )


class _Lives:
    """The slots of one seed, until every planned death has happened."""

    def __init__(
        self, app: Application, plan: Plan, announcer: System, versions: Sequence[Published]
    ) -> None:
        self._app = app
        self._deaths = plan.deaths
        self._announcer = announcer
        self._versions = iter(versions)
        self._next_swap = 0.0

    def run(self) -> None:
        """Start the slots and strike; raises NotReachedError when deaths are still to come."""
        for slot in self._deaths:
            self._plant(slot, 1)
            self._app.supervisor.add(slot)
        self._app.until(self._all_died, _ALL_DIED_SECONDS, "every planned death")

    def _plant(self, slot: str, number: int) -> None:
        death = self._death(slot, number)
        self._app.plant(slot, "" if death is None else death.fail_point)

    def _death(self, slot: str, number: int) -> Death | None:
        deaths = self._deaths[slot]
        return deaths[number - 1] if number <= len(deaths) else None

    def _all_died(self) -> bool:
        for slot, number, process in self._app.supervisor.running():
            self._plant(slot, number + 1)
            death = self._death(slot, number)
            if death is not None and self._app.supervisor.age(slot) > death.after_seconds:
                process.kill()
            if process.fail_point.startswith("in_swap") and _SERVES in process.text:
                self._swap()
        return all(
            self._app.supervisor.starts(slot) > len(deaths) for slot, deaths in self._deaths.items()
        )

    def _swap(self) -> None:
        version = next(self._versions, None) if time.monotonic() > self._next_swap else None
        if version is not None:
            self._next_swap = time.monotonic() + _SWAP_SECONDS
            self._announcer.announce(version)


def _judge(outcome: Outcome, app: Application, max_recovery_seconds: float) -> None:
    deadly = [end for end in app.exits if end.code in (-9, crashing.EXIT_CODE)]
    outcome.kills = len(deadly)
    for end in deadly:
        if end.process.fail_point:
            reached = end.code == crashing.EXIT_CODE
            (outcome.reached if reached else outcome.missed).append(end.process.fail_point)
    outcome.recovery_seconds = max(recoveries(deadly, app.gauge.readings), default=0.0)
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
