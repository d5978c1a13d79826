"""Scenarios in which workers join, leave, die and freeze, and what a run of one has shown."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from benchmarks.chaos.invariants import Findings
from benchmarks.chaos.system import make_settings
from benchmarks.under_load import Application, NotReachedError, Stage

MEMBERS: Final = ("dynamic", "static")
SLOTS: Final = ("a", "b", "c", "d")
PARTITIONS: Final = 4
SESSION_SECONDS: Final = 2.0
_PER_SECOND = 300.0
_SERVE_SECONDS = 60.0
_SETTLE_SECONDS = 45.0
_CHURN_STEPS = 20
_CHURN_SECONDS = 1.0
_FREEZE_SECONDS = 1.5 * SESSION_SECONDS
_LONGEST_DELAY_SECONDS = 1.5


@dataclass(frozen=True)
class Order:
    """One run."""

    scenario: str
    members: str
    guarantee: str
    seed: int


@dataclass
class Outcome:
    """What one run has shown."""

    order: Order
    findings: Findings
    exits: list[int] = field(default_factory=list)
    longest_pause_seconds: float = 0.0


def run(order: Order, stage: Stage) -> Outcome:
    """Let one seed's members come and go, then judge."""
    rng = np.random.default_rng(order.seed)
    early = []
    with make_application(order, stage) as app:
        app.scale(SLOTS[:1])
        app.until(app.serves, _SERVE_SECONDS, "the first worker serves")
        started = time.monotonic()
        try:
            SCENARIOS[order.scenario](app, rng)
        except NotReachedError as error:
            early.append(f"{error} (I7)")
        findings = app.finish()
        pause = app.longest_pause(started)
    findings.violations = early + findings.violations
    return Outcome(order, findings, [end.code for end in app.exits], round(pause, 2))


def make_application(
    order: Order, stage: Stage, *, kafka: Mapping[str, Any] = MappingProxyType({})
) -> Application:
    """Return the application of a run; its dead members are missed after two seconds."""
    name = f"m{order.seed}-{order.scenario}-{order.guarantee.replace('_', '-')}"
    settings = make_settings(
        *(stage.bootstrap_servers, f"{name}-{time.time_ns() % 10**9}-", stage.store_url),
        kafka={
            "session_timeout_ms": int(1000 * SESSION_SECONDS),
            "heartbeat_interval_ms": 300,
            **kafka,
        },
        topics={"partitions": PARTITIONS},
        processing={
            "guarantee": order.guarantee,
            "static_members": order.members == "static",
            "slot": "x",
        },
    )
    return Application(stage, settings, seed=order.seed, per_second=_PER_SECOND)


def scale(app: Application, rng: np.random.Generator) -> None:
    """1, 3, 2, 4, 1 and 2 workers, then a rolling restart; one worker is killed on the way."""
    steps = [SLOTS[:3], SLOTS[:2], SLOTS, SLOTS[:1], SLOTS[:2]]
    kill_at = int(rng.integers(len(steps)))
    for number, slots in enumerate(steps):
        app.scale(slots)
        app.run_for(float(rng.uniform(0.0, _LONGEST_DELAY_SECONDS)))
        if number == kill_at and app.slots:
            app.process(str(rng.choice(app.slots))).kill()
        _await_answers(app)
    for slot in SLOTS[:2]:
        restart(app, slot)


def restart(app: Application, slot: str) -> None:
    """Stop a worker cleanly, start it again, and wait until every partition is answered."""
    app.stop(slot)
    app.until(lambda: slot not in app.slots, _SETTLE_SECONDS, f"{slot} stops")
    app.supervisor.add(slot)
    _await_answers(app)


def churn(app: Application, rng: np.random.Generator) -> None:
    """Every second a worker joins, leaves, is killed, or is frozen for a while; one stays."""
    frozen: dict[str, float] = {}
    for _ in range(_CHURN_STEPS):
        app.run_for(_CHURN_SECONDS)
        _thaw(app, frozen, time.monotonic())
        awake = [slot for slot in app.slots if slot not in frozen and slot != SLOTS[0]]
        absent = [slot for slot in SLOTS if slot not in app.slots]
        if absent and rng.random() < (len(absent) + 1) / (len(SLOTS) + 1):
            app.supervisor.add(str(rng.choice(absent)))
        elif awake:
            _PARTINGS[int(rng.integers(len(_PARTINGS)))](app, str(rng.choice(awake)), frozen)
    _thaw(app, frozen, float("inf"))
    _await_answers(app)


SCENARIOS: Final[dict[str, Callable[[Application, np.random.Generator], None]]] = {
    "scale": scale,
    "churn": churn,
}


def _leave(app: Application, slot: str, frozen: dict[str, float]) -> None:
    app.stop(slot)


def _kill(app: Application, slot: str, frozen: dict[str, float]) -> None:
    app.process(slot).kill()


def _freeze(app: Application, slot: str, frozen: dict[str, float]) -> None:
    app.process(slot).signal(signal.SIGSTOP)
    frozen[slot] = time.monotonic() + _FREEZE_SECONDS


_PARTINGS = (_leave, _kill, _freeze)


def _thaw(app: Application, frozen: dict[str, float], now: float) -> None:
    for slot in [slot for slot, until in frozen.items() if until < now]:
        del frozen[slot]
        app.process(slot).signal(signal.SIGCONT)


def _await_answers(app: Application) -> None:
    since = app.gauge.latest
    app.until(lambda: app.went_on(since), _SETTLE_SECONDS, "every partition is answered again")
