"""A service manager for worker slots: starts them again after every exit; it injects no fault."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.chaos.processes import WorkerProcess

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
_STEADY_SECONDS = 10.0
_FENCED = 75


@dataclass(frozen=True)
class Exit:
    """The end of one process of a slot."""

    slot: str
    code: int
    at: float
    lived_seconds: float
    process: WorkerProcess


@dataclass
class _Slot:
    name: str
    wanted: bool = True
    process: WorkerProcess | None = None
    released: WorkerProcess | None = None
    started_at: float = 0.0
    starts: int = 0
    quick_ends: int = 0
    start_at: float = 0.0


class Supervisor:
    """Restart each slot with exponential back-off and jitter, after exit 75 not too soon.

    A fenced worker that came back at once would only be fenced again: it waits for the session
    timeout at least. `start(slot, number)` starts the slot's n-th process. Call `tick` often.
    """

    def __init__(
        self,
        start: Callable[[str, int], WorkerProcess],
        *,
        seed: int,
        session_timeout_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start = start
        self._rng = np.random.default_rng(seed)
        self._session_timeout_seconds = session_timeout_seconds
        self._monotonic = monotonic
        self._slots: dict[str, _Slot] = {}
        self.exits: list[Exit] = []

    def add(self, name: str) -> None:
        """Want a slot to run, from now on."""
        slot = self._slots.setdefault(name, _Slot(name))
        slot.wanted, slot.start_at = True, self._monotonic()
        self.tick()

    def release(self, name: str) -> WorkerProcess | None:
        """No longer restart a slot; returns its process, which goes on, but each only once."""
        slot = self._slots[name]
        slot.wanted = False
        if slot.process is slot.released:
            return None
        slot.released = slot.process
        return slot.process

    def process(self, name: str) -> WorkerProcess | None:
        """Return the running process of a slot."""
        return self._slots[name].process

    def starts(self, name: str) -> int:
        """Return how many processes the slot has had."""
        return self._slots[name].starts

    def age(self, name: str) -> float:
        """Return the seconds since the slot's last start."""
        return self._monotonic() - self._slots[name].started_at

    def running(self) -> Iterator[tuple[str, int, WorkerProcess]]:
        """Yield slot, number of the process in its slot, and process."""
        for slot in self._slots.values():
            if slot.process is not None:
                yield slot.name, slot.starts, slot.process

    def tick(self) -> None:
        """Note who has ended, start who is due."""
        for slot in self._slots.values():
            if slot.process is not None and not slot.process.running:
                self._note_end(slot, slot.process)
            due = slot.wanted and slot.process is None and self._monotonic() >= slot.start_at
            if due:
                slot.starts += 1
                slot.started_at = self._monotonic()
                slot.process = self._start(slot.name, slot.starts)

    def end_all(self) -> None:
        """Kill every process and start none again."""
        for slot in self._slots.values():
            slot.wanted = False
            if slot.process is not None and slot.process.running:
                slot.process.kill()

    def _note_end(self, slot: _Slot, process: WorkerProcess) -> None:
        now = self._monotonic()
        lived = now - slot.started_at
        code = process.exit_code
        assert code is not None
        self.exits.append(Exit(slot.name, code, now, lived, process))
        slot.process = None
        slot.quick_ends = 0 if lived > _STEADY_SECONDS else slot.quick_ends + 1
        pause = _FIRST_PAUSE_SECONDS * 2 ** min(slot.quick_ends, 8)
        pause = min(pause, _LONGEST_PAUSE_SECONDS) * float(self._rng.uniform(0.5, 1.0))
        if code == _FENCED:
            pause = max(pause, self._session_timeout_seconds)
        slot.start_at = now + pause
