"""One soak: an application under load and fault after fault, then every invariant."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos.faults import Fault, Faults, Targets
from benchmarks.chaos.figures import Begun, growth, recovery_seconds, summary
from benchmarks.chaos.invariants import examine, exits_as_specified, within
from benchmarks.chaos.load import Load, Witness
from benchmarks.chaos.processes import WorkerProcess
from benchmarks.chaos.supervisor import Supervisor
from benchmarks.chaos.system import Gauge, System, for_slot, make_settings
from benchmarks.chaos.versions import Versions
from stream.local_kafka import LocalKafka

SLOTS = ("a", "b", "c")
PARTITIONS = 4
FAULT_EVERY_SECONDS = 15.0
SESSION_SECONDS = 4.0
_NUM_USERS, _NUM_ITEMS = 2_000, 500
_REFRESH_SECONDS = 30.0
_RSS_SECONDS = 2.0
_GAUGE_SECONDS = 0.2
_TICK_SECONDS = 0.05
_START_SECONDS = 120.0
_RECOVER_SECONDS = 90.0
_QUIET_SECONDS = 180.0
_STOP_SECONDS = 15.0


@dataclass(frozen=True)
class Order:
    """What was asked for."""

    minutes: float
    seed: int
    brokers: int
    guarantee: str
    clicks_per_second: float


@dataclass
class _Sampled:
    faults: list[Begun] = field(default_factory=list)
    rss: defaultdict[str, list[tuple[float, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    violations: list[str] = field(default_factory=list)


class Soak:
    """Slots `a`, `b`, `c`: `a` is never hurt by itself, so that its memory tells of a long life."""

    def __init__(self, order: Order, directory: Path, report: Callable[[float, str], None]) -> None:
        self._order = order
        self._directory = directory
        self._report = report
        self._sampled = _Sampled()
        self._normal_lag = int(order.clicks_per_second)
        self._next_rss = self._next_refresh = 0.0

    def run(self) -> dict[str, Any]:
        """Run it; whatever happens, nothing that it started goes on."""
        with ExitStack() as stack:
            kafka = stack.enter_context(
                LocalKafka(self._directory / "kafka", brokers=self._order.brokers)
            )
            self._system = stack.enter_context(System(self._settings(kafka)))
            self._versions = Versions(
                str(self._directory / "models"), num_items=_NUM_ITEMS, seed=self._order.seed
            )
            self._refresh()
            self._open_threads(stack)
            self._supervisor = Supervisor(
                self._start, seed=self._order.seed, session_timeout_seconds=SESSION_SECONDS
            )
            stack.callback(self._supervisor.end_all)
            faults = self._faults(kafka)
            stack.callback(faults.close)
            self._disturb(faults)
            faults.mend()
            return self._finish(faults)

    def _settings(self, kafka: LocalKafka) -> Any:
        return make_settings(
            kafka.bootstrap_servers,
            "soak-",
            str(self._directory / "models"),
            kafka={
                "session_timeout_ms": int(1000 * SESSION_SECONDS),
                "heartbeat_interval_ms": 1_000,
                "max_poll_interval_ms": 60_000,
            },
            topics={"partitions": PARTITIONS, "replication_factor": min(self._order.brokers, 3)},
            processing={"guarantee": self._order.guarantee},
        )

    def _open_threads(self, stack: ExitStack) -> None:
        settings = self._system.settings
        self._gauge = Gauge(settings, every_seconds=_GAUGE_SECONDS)
        stack.callback(self._gauge.close)
        self._witness = Witness(settings)
        stack.callback(self._witness.finish, 0.0)
        self._load = Load(
            settings,
            seed=self._order.seed,
            per_second=self._order.clicks_per_second,
            num_users=_NUM_USERS,
            num_items=_NUM_ITEMS,
        )
        stack.callback(self._load.stop)

    def _start(self, slot: str, number: int) -> WorkerProcess:
        return WorkerProcess(
            for_slot(self._system.settings, slot), self._directory / "workers" / f"{slot}{number}"
        )

    def _faults(self, kafka: LocalKafka) -> Faults:
        targets = Targets(
            kafka=kafka,
            supervisor=self._supervisor,
            load=self._load,
            slots=SLOTS[1:],
            worker_pause_seconds=1.5 * SESSION_SECONDS,
            refresh=self._refresh,
        )
        return Faults(targets, self._order.seed)

    def _refresh(self) -> None:
        self._system.announce(self._versions.publish())

    def _disturb(self, faults: Faults) -> None:
        """Wait until all is normal, then begin a fault every 15 s or when the last is over."""
        for slot in SLOTS:
            self._supervisor.add(slot)
        self._until(self._is_normal, _START_SECONDS, "the start")
        started = time.monotonic()
        next_fault = started + FAULT_EVERY_SECONDS
        while (now := time.monotonic()) < started + 60 * self._order.minutes:
            self._tick(now - started)
            if now >= next_fault:
                fault = faults.draw()
                self._carry_out(fault, started)
                self._until(self._is_normal, _RECOVER_SECONDS, f"{fault.kind} {fault.target}")
                next_fault = max(next_fault + FAULT_EVERY_SECONDS, time.monotonic())

    def _carry_out(self, fault: Fault, started: float) -> None:
        begin = time.monotonic()
        self._sampled.faults.append(Begun(fault.kind, fault.target, begin))
        for delay, act in fault.steps:
            while time.monotonic() < begin + delay:
                self._tick(time.monotonic() - started)
            act()

    def _tick(self, elapsed: float) -> None:
        self._supervisor.tick()
        self._sample()
        last = self._sampled.faults[-1] if self._sampled.faults else Begun("none yet", "", 0.0)
        self._report(elapsed, f"{last.kind} {last.target}, lag {self._gauge.latest.lag}")
        time.sleep(_TICK_SECONDS)

    def _sample(self) -> None:
        now = time.monotonic()
        if now >= self._next_rss:
            self._next_rss = now + _RSS_SECONDS
            for slot, number, process in self._supervisor.running():
                if size := process.rss_bytes:
                    self._sampled.rss[f"{slot}{number}"].append((now, size))
        if now >= self._next_refresh:
            self._next_refresh = now + _REFRESH_SECONDS
            self._refresh()

    def _is_normal(self) -> bool:
        latest = self._gauge.latest
        fresh = time.monotonic() - latest.at < 5 * _GAUGE_SECONDS
        return fresh and len(latest.committed) == PARTITIONS and latest.lag <= self._normal_lag

    def _until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        if not within(condition, seconds, self._supervise):
            self._sampled.violations.append(
                f"lag {self._gauge.latest.lag} still {seconds:g} s after {what} (I7)"
            )

    def _supervise(self) -> None:
        self._supervisor.tick()
        self._sample()

    def _finish(self, faults: Faults) -> dict[str, Any]:
        """1 no more clicks, 2 all answered, 3 workers stopped, 4 judged."""
        end = time.monotonic()
        sent = self._load.stop()
        self._until(lambda: self._is_answered(sent), _QUIET_SECONDS, "the last click")
        for slot in SLOTS:
            process = self._supervisor.release(slot)
            if process is not None:
                process.terminate()
        if not within(lambda: not list(self._supervisor.running()), _STOP_SECONDS, self._supervise):
            self._sampled.violations.append("a worker did not stop on SIGTERM (I10)")
        seen = self._witness.finish(_QUIET_SECONDS)
        if self._witness.error is not None:
            self._sampled.violations.append(f"the reader failed: {self._witness.error!r}")
        findings = examine(self._system.settings, seen, sent)
        exits = self._supervisor.exits
        return {
            "clicks": findings.clicks,
            "faults": dict(Counter(fault.kind for fault in self._sampled.faults)),
            "lost": findings.lost,
            "repeated": findings.repeated,
            "applied_twice": findings.applied_twice,
            "violations": [
                *self._sampled.violations,
                *faults.errors,
                *exits_as_specified(exits),
                *findings.violations,
            ],
            "recovery_seconds": self._recoveries(end),
            "worker_exits": {str(code): n for code, n in Counter(e.code for e in exits).items()},
            "model_versions": findings.versions,
            **self._memory(),
        }

    def _is_answered(self, sent: int) -> bool:
        latest = self._gauge.latest
        return sum(latest.ends.values()) >= sent and latest.lag == 0

    def _recoveries(self, end: float) -> dict[str, dict[str, float]]:
        begun = self._sampled.faults
        seconds: defaultdict[str, list[float]] = defaultdict(list)
        for fault, until in zip(begun, (*(f.at for f in begun[1:]), end), strict=False):
            found = recovery_seconds(self._gauge.readings, fault.at, until, self._normal_lag)
            seconds[fault.kind].append(until - fault.at if found is None else found)
        return {kind: summary(found) for kind, found in seconds.items()}

    def _memory(self) -> dict[str, Any]:
        found = growth(self._sampled.rss)
        return {
            "rss_slope_percent_per_hour": found and found.slope_percent_per_hour,
            "rss": found and asdict(found),
        }
