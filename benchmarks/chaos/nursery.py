"""Worker processes that start in a moment: children of one that has done all imports already.

A worker needs more than four seconds of CPU for its imports, a child of the nursery none. It forks
before any client exists and knows no settings.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import random
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from benchmarks.chaos import crashing
from benchmarks.chaos.processes import ROOT, environment

_START_SECONDS = 60.0
_REAP_SECONDS = 0.01
_PACKAGES = ("cli", "index", "model", "stream", "worker")


class Nursery:
    """Starts workers as children of a process that has imported them; ends with its `with`."""

    def __enter__(self) -> Nursery:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.chaos.nursery"],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._changed = threading.Condition()
        self._pids: list[int] = []
        self._codes: dict[int, int] = {}
        self._ready = False
        self._reader = threading.Thread(target=self._read, name="nursery", daemon=True)
        self._reader.start()
        with self._changed:
            if not self._changed.wait_for(lambda: self._ready, _START_SECONDS):
                self._process.kill()
                raise TimeoutError("the nursery did not start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # it kills its children and ends
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def __call__(self, config: Path, log: Path, fail_point: str) -> NurseryChild:
        """Start a worker; one caller at a time."""
        assert self._process.stdin is not None
        order = {"config": str(config), "log": str(log), "fail_point": fail_point}
        with self._changed:
            known = len(self._pids)
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            if not self._changed.wait_for(lambda: len(self._pids) > known, _START_SECONDS):
                raise TimeoutError("the nursery does not answer")
            return NurseryChild(self, self._pids[-1])

    def code(self, pid: int, seconds: float) -> int | None:
        """Return the exit code of a child, waiting at most so long; None while it runs."""
        with self._changed:
            self._changed.wait_for(lambda: pid in self._codes, seconds)
            return self._codes.get(pid)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, *numbers = line.split()
            with self._changed:
                if word == b"ready":
                    self._ready = True
                elif word == b"started":
                    self._codes.pop(int(numbers[0]), None)
                    self._pids.append(int(numbers[0]))
                elif word == b"ended":
                    self._codes[int(numbers[0])] = int(numbers[1])
                self._changed.notify_all()


class NurseryChild:
    """One worker that the nursery has started."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery = nursery
        self._code: int | None = None
        self.pid = pid

    def poll(self) -> int | None:
        """Return the exit code, None while it runs; negative for a signal."""
        if self._code is None:
            self._code = self._nursery.code(self.pid, 0.0)
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code; raises subprocess.TimeoutExpired."""
        if self._code is None:
            self._code = self._nursery.code(self.pid, timeout or threading.TIMEOUT_MAX)
        if self._code is None:
            raise subprocess.TimeoutExpired("nextclick worker", timeout or 0.0)
        return self._code

    def send_signal(self, sig: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            try:
                os.kill(self.pid, sig)
            except ProcessLookupError:
                return  # ended just now


def _serve() -> None:
    """Fork a worker for every order; at the end of the orders kill all and leave."""
    for package in _PACKAGES:
        for module in pkgutil.iter_modules([str(ROOT / package)]):
            importlib.import_module(f"{package}.{module.name}")
    _say("ready")
    running: set[int] = set()
    for order in _orders():
        if order:
            pid = os.fork()
            if pid == 0:
                _become_worker(**json.loads(order))
            running.add(pid)
            _say(f"started {pid}")
        for pid, code in _reaped(running):
            _say(f"ended {pid} {code}")
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _orders() -> Iterator[bytes]:
    """Yield a line at a time, and in between nothing every few milliseconds, until the end."""
    waiting = b""
    while True:
        if select.select([0], [], [], _REAP_SECONDS)[0]:
            read = os.read(0, 65_536)
            if not read:
                return
            *lines, waiting = (waiting + read).split(b"\n")
            yield from lines
        yield b""


def _reaped(running: set[int]) -> list[tuple[int, int]]:
    ended = []
    for pid in tuple(running):
        if (status := os.waitpid(pid, os.WNOHANG))[0]:
            running.discard(pid)
            ended.append((pid, os.waitstatus_to_exitcode(status[1])))
    return ended


def _say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


def _become_worker(config: str, log: str, fail_point: str) -> None:
    """Go on as `nextclick worker`; never returns."""
    os.setsid()
    random.seed()  # the client's back-off must not be that of its siblings
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor, target in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
        os.dup2(descriptor, target)
    code = 70
    try:
        code = crashing.main([fail_point, "worker", "--config", config])
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve()
