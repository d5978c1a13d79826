"""The worker and the trainer as processes of their own: start, watch, scrape, stop."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from cli.settings import PREFIX
from stream.kafka_node import bound_to_parent

_STOP_SECONDS = 10.0
_HTTP_SECONDS = 2.0
_POLL_SECONDS = 0.1
_TAIL_BYTES = 2_000


class RoleError(RuntimeError):
    """A process ended, did not become ready, or did not stop cleanly; with its log's tail."""


class RoleProcess:
    """`nextclick <role>` in a process group of its own, its output in a file."""

    def __init__(self, role: str, config: Path, log: Path, metrics_port: int) -> None:
        self.role = role
        self._config = config
        self._log = log
        self._url = f"http://127.0.0.1:{metrics_port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process without waiting for it."""
        command = [sys.executable, "-m", "cli", self.role, "--config", str(self._config)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*bound_to_parent(), *command],
                cwd=self._config.parent,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C at the terminal is not for it
            )

    def check(self) -> None:
        """Raise RoleError if the process has ended."""
        code = self._process.poll() if self._process is not None else None
        if code is not None:
            raise RoleError(f"the {self.role} ended with exit code {code}\n{self._tail()}")

    def await_ready(self, seconds: float) -> None:
        """Wait until /readyz says so; raise RoleError when it ends or the time is over."""
        deadline = time.monotonic() + seconds
        while self._get("/readyz") is None:
            self.check()
            if time.monotonic() > deadline:
                raise RoleError(
                    f"the {self.role} was not ready after {seconds:g} s\n{self._tail()}"
                )
            time.sleep(_POLL_SECONDS)

    def samples(self, name: str) -> dict[str, float]:
        """Return the values of a metric by their labels as written; empty if it cannot be had."""
        found = {}
        for line in (self._get("/metrics") or "").splitlines():
            if line.startswith((f"{name} ", f"{name}{{")):
                series, _, value = line.rpartition(" ")
                found[series.removeprefix(name)] = float(value)
        return found

    def cpu_seconds(self) -> float:
        """Return the CPU time used so far; raises RoleError when the process does not say."""
        found = self.samples("process_cpu_seconds_total")
        if not found:
            raise RoleError(f"the {self.role} does not answer at {self._url}\n{self._tail()}")
        return found[""]

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self._process is not None:
            self._process.terminate()

    def end(self) -> None:
        """Wait for the end after `ask_to_stop`, else kill; raise RoleError if it was not clean."""
        if self._process is None:
            return
        try:
            code = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise RoleError(
                f"the {self.role} did not stop within {_STOP_SECONDS:g} s\n{self._tail()}"
            ) from None
        finally:
            if self._process.poll() is not None:
                self._process = None
        if code:
            raise RoleError(f"the {self.role} stopped with exit code {code}\n{self._tail()}")

    def _get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(self._url + path, timeout=_HTTP_SECONDS) as answer:
                body: bytes = answer.read()
        except (urllib.error.URLError, http.client.HTTPException, OSError):
            return None
        return body.decode()

    def _tail(self) -> str:
        written = self._log.read_bytes() if self._log.exists() else b""
        text = written[-_TAIL_BYTES:].decode(errors="replace")
        return f"--- end of {self._log}\n{text}"


class Roles:
    """All processes of a demo: whatever happens, none survives the `with` block."""

    def __init__(self, *roles: RoleProcess) -> None:
        self._roles = roles

    def __enter__(self) -> Roles:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop(on_error=lambda _: None)

    def start(self, ready_seconds: float) -> None:
        """Start all and wait until each is ready."""
        for role in self._roles:
            role.start()
        for role in self._roles:
            role.await_ready(ready_seconds)

    def check(self) -> None:
        """Raise RoleError if any has ended."""
        for role in self._roles:
            role.check()

    def stop(self) -> None:
        """Stop all; raise the first RoleError once none runs any more."""
        errors: list[RoleError] = []
        self._stop(on_error=errors.append)
        if errors:
            raise errors[0]

    def _stop(self, on_error: Callable[[RoleError], None]) -> None:
        for role in self._roles:
            role.ask_to_stop()
        for role in self._roles:
            try:
                role.end()
            except RoleError as error:
                on_error(error)


def _environment() -> dict[str, str]:
    """Return our environment without settings: the file holds them all, and must win."""
    kept = {
        name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)
    }
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
