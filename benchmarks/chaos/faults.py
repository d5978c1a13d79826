"""The faults of a soak: what is done to workers, brokers and clicks, and when it is over again.

A fault is a short plan of timed steps on a running application; it judges nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from benchmarks.chaos.load import Load
from benchmarks.chaos.processes import WorkerProcess
from benchmarks.chaos.supervisor import Supervisor
from stream.local_kafka import LocalKafka

Step = tuple[float, Callable[[], object]]  # seconds after the fault's begin, what to do

KINDS = (
    "kill_worker",
    "pause_worker",
    "kill_broker",
    "pause_broker",
    "rebalance",
    "poison_burst",
    "swap_storm",
)
_BROKER_DOWN_SECONDS = 4.0
_BROKER_PAUSE_SECONDS = 6.0  # brokers are given up after 3
_BROKER_START_SECONDS = 90.0
_BURST_SECONDS = 8.0
_BURST_SHARE = 0.3
_STORM_VERSIONS = 10


@dataclass(frozen=True)
class Targets:
    """What a fault can reach; workers of `slots` may be hurt, that of the last comes and goes."""

    kafka: LocalKafka
    supervisor: Supervisor
    load: Load
    slots: tuple[str, ...]
    worker_pause_seconds: float
    refresh: Callable[[], object]


@dataclass(frozen=True)
class Fault:
    """One fault, ready to begin; its first step does the harm, the others mend it."""

    kind: str
    target: str
    steps: list[Step]


class Faults:
    """Draws fault after fault; equal seeds draw equal kinds in equal order.

    Kinds come in rounds, each with every kind once in a drawn order: in an hour none is rare.
    """

    def __init__(self, targets: Targets, seed: int) -> None:
        self._targets = targets
        self._rng = np.random.default_rng(seed)
        self._kinds = self._rounds()
        self._errors: list[str] = []
        self._restarts: list[threading.Thread] = []
        self._usual_poison = targets.load.poison_share
        self._comes_and_goes = cycle((self._leave, self._join))

    @property
    def errors(self) -> list[str]:
        """What went wrong with the means of a fault itself, such as a broker that did not start."""
        return self._errors

    def draw(self) -> Fault:
        """Return the next fault."""
        kind = next(self._kinds)
        target, steps = getattr(self, f"_{kind}")()
        return Fault(kind, target, steps)

    def close(self) -> None:
        """Wait for brokers that are being started."""
        for thread in self._restarts:
            thread.join(_BROKER_START_SECONDS)

    def mend(self) -> None:
        """Undo whatever a fault cut short has left: brokers run, workers wake, clicks are good."""
        self.close()
        kafka = self._targets.kafka
        for broker in kafka.broker_ids:
            if broker not in kafka.pids:
                kafka.restart(broker)
            kafka.resume(broker)
        for _, _, process in self._targets.supervisor.running():
            process.signal(signal.SIGCONT)
        self._targets.load.poison_share = self._usual_poison

    def _rounds(self) -> Iterator[str]:
        while True:
            yield from self._rng.permutation(KINDS).tolist()

    def _worker(self) -> tuple[str, WorkerProcess | None]:
        running = {slot: process for slot, _, process in self._targets.supervisor.running()}
        candidates = [slot for slot in self._targets.slots if slot in running]
        if not candidates:
            return "none", None
        slot = str(self._rng.choice(candidates))
        return slot, running[slot]

    def _broker(self) -> int:
        return int(self._rng.choice(self._targets.kafka.broker_ids))

    def _kill_worker(self) -> tuple[str, list[Step]]:
        slot, process = self._worker()
        return slot, [(0.0, process.kill)] if process is not None else []

    def _pause_worker(self) -> tuple[str, list[Step]]:
        slot, process = self._worker()
        if process is None:
            return slot, []
        return slot, [
            (0.0, lambda: process.signal(signal.SIGSTOP)),
            (self._targets.worker_pause_seconds, lambda: process.signal(signal.SIGCONT)),
        ]

    def _kill_broker(self) -> tuple[str, list[Step]]:
        broker, kafka = self._broker(), self._targets.kafka
        return str(broker), [
            (0.0, lambda: kafka.kill(broker)),
            (_BROKER_DOWN_SECONDS, lambda: self._restart(broker)),
        ]

    def _pause_broker(self) -> tuple[str, list[Step]]:
        broker, kafka = self._broker(), self._targets.kafka
        return str(broker), [
            (0.0, lambda: kafka.pause(broker)),
            (_BROKER_PAUSE_SECONDS, lambda: kafka.resume(broker)),
        ]

    def _rebalance(self) -> tuple[str, list[Step]]:
        return self._targets.slots[-1], [(0.0, next(self._comes_and_goes))]

    def _leave(self) -> None:
        process = self._targets.supervisor.release(self._targets.slots[-1])
        if process is not None:
            process.terminate()

    def _join(self) -> None:
        self._targets.supervisor.add(self._targets.slots[-1])

    def _poison_burst(self) -> tuple[str, list[Step]]:
        def set_share(share: float) -> None:
            self._targets.load.poison_share = share

        return "clicks", [
            (0.0, lambda: set_share(_BURST_SHARE)),
            (_BURST_SECONDS, lambda: set_share(self._usual_poison)),
        ]

    def _swap_storm(self) -> tuple[str, list[Step]]:
        return "models", [(float(n), self._targets.refresh) for n in range(_STORM_VERSIONS)]

    def _restart(self, broker: int) -> None:
        # It waits until the broker serves; workers have to be looked after meanwhile.
        def restart() -> None:
            try:
                self._targets.kafka.restart(broker)
            except RuntimeError as error:
                self._errors.append(f"broker {broker} did not start again: {error}")

        thread = threading.Thread(target=restart, name=f"restart-{broker}")
        self._restarts.append(thread)
        thread.start()
