"""A worker as a real process that can be killed, frozen and stopped; it knows no topics."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from cli.demo_settings import write_settings
from cli.settings import PREFIX, Settings
from stream.kafka_node import bound_to_parent

ROOT = Path(__file__).parents[2]
_KILL_SECONDS = 10.0


class Child(Protocol):
    """What a worker needs of its process; `subprocess.Popen` has it all."""

    @property
    def pid(self) -> int:
        """Return the process id."""

    def poll(self) -> int | None:
        """Return the exit code, None while it runs; negative for a signal."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code; raises subprocess.TimeoutExpired."""

    def send_signal(self, sig: int) -> None:
        """Send a signal, if it still runs."""


class Spawn(Protocol):
    """Start a worker with a configuration file, its output in a log file."""

    def __call__(self, config: Path, log: Path, fail_point: str) -> Child:
        """Return the started process."""


class WorkerProcess:
    """`nextclick worker` in a process of its own, with its settings and log in `directory`.

    With a `fail_point` ("name:n", see `benchmarks/chaos/crashing.py`) it ends with exit code 137
    when it comes there the n-th time.
    """

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        *,
        fail_point: str = "",
        spawn: Spawn | None = None,
    ) -> None:
        directory.mkdir(parents=True)
        config = directory / "nextclick.toml"
        free = settings.metrics.model_copy(update={"worker_port": 0})
        write_settings(settings.model_copy(update={"metrics": free}), config)
        self.log = directory / "worker.log"
        self.log.touch()  # it can be read before the process has opened it
        self.fail_point = fail_point
        self._child = (spawn or start_cold)(config, self.log, fail_point)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it runs; a frozen one does."""
        return self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code, None while it runs; negative when a signal ended it."""
        return self._child.poll()

    @property
    def text(self) -> str:
        """All that it has logged."""
        return self.log.read_text(errors="replace")

    @property
    def rss_bytes(self) -> int:
        """Resident memory; 0 when it does not run."""
        try:
            fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        except OSError:
            return 0
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; SIGSTOP freezes it, SIGCONT lets it go on."""
        self._child.send_signal(number)

    def terminate(self) -> None:
        """Ask it to stop."""
        self.signal(signal.SIGTERM)

    def wait(self, seconds: float) -> int:
        """Wait for the process to end; returns its exit code."""
        return self._child.wait(seconds)

    def kill(self) -> None:
        """End it as a crash would; waits until it is gone."""
        self._child.send_signal(signal.SIGKILL)
        self._child.wait(_KILL_SECONDS)


def start_cold(config: Path, log: Path, fail_point: str) -> Child:
    """Start the command as an operator would: some seconds pass until its imports are done."""
    module = ["benchmarks.chaos.crashing", fail_point] if fail_point else ["cli"]
    with log.open("wb") as output:
        return subprocess.Popen(
            [*bound_to_parent(), sys.executable, "-m", *module, "worker", "--config", str(config)],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C at the terminal is not for it
        )


def environment() -> dict[str, str]:
    """Return our environment without settings of nextclick, and with one thread per process."""
    kept = {name: text for name, text in os.environ.items() if not name.upper().startswith(PREFIX)}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def end_all(processes: list[WorkerProcess]) -> None:
    """Kill what still runs, frozen ones too."""
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            if process.running:
                process.kill()
