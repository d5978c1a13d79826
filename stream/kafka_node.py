"""One Kafka node as a process of its own: format, start, signal, stop; it knows no other node."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stream.kafka_properties import CONTROLLER_ID, LOOPBACK
from stream.kafka_runtime import KafkaRuntime

LOG_CONFIGURATION = Path(__file__).with_name("log4j2.properties")
POLL_SECONDS = 0.05
TAIL_BYTES = 3000
MEMORY = ("-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:-UsePerfData")


class KafkaStartError(RuntimeError):
    """A node did not become ready; the message carries the tail of its log."""


@dataclass
class KafkaNode:
    """One broker or controller: its files under one directory and its process, if it runs."""

    node_id: int
    directory: Path
    port: int
    runtime: KafkaRuntime
    options: tuple[str, ...] = ()
    detached: bool = False
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def properties(self) -> Path:
        """Path of the node's configuration file."""
        return self.directory / "server.properties"

    @property
    def log(self) -> Path:
        """Path of what Kafka logs since the last start."""
        return self.directory / "server.log"

    @property
    def alive(self) -> bool:
        """Whether the process runs (a paused one does)."""
        return self.process is not None and self.process.poll() is None

    def configure(self, properties: dict[str, str]) -> None:
        """Write the configuration file."""
        self.directory.mkdir(parents=True, exist_ok=True)
        lines = (f"{key}={value}\n" for key, value in properties.items())
        self.properties.write_text("".join(lines), encoding="utf-8")

    def begin_format(self, cluster_id: str) -> None:
        """Begin to format the data directory; one that is formatted already is left alone."""
        arguments = ["format", "-t", cluster_id, "-c", str(self.properties), "--ignore-formatted"]
        if self.node_id == CONTROLLER_ID:
            arguments.append("--standalone")
        self.process = self._java("kafka.tools.StorageTool", arguments)

    def end_format(self, deadline: float) -> None:
        """Wait for the format; raise KafkaStartError if it failed or took too long."""
        self.wait(deadline)
        if self.process is None or self.process.returncode != 0:
            raise KafkaStartError(f"node {self.node_id}: format failed\n{self.tail()}")

    def start(self, *options: str) -> None:
        """Start the process without waiting for it; the previous log is kept beside the new one."""
        if self.log.exists():  # else the ready line of the previous run would count
            self.log.replace(self.directory / "server.previous.log")
        self.process = self._java("kafka.Kafka", [str(self.properties)], options)

    def has_started(self) -> bool:
        """Whether the node logged that it is up; raise KafkaStartError if its process ended."""
        if not self.alive:
            raise KafkaStartError(f"node {self.node_id} ended while starting\n{self.tail()}")
        ready = f"[KafkaRaftServer nodeId={self.node_id}] Kafka Server started"
        return self.log.exists() and ready in self.log.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process runs."""
        if self.process is not None and self.alive:
            self.process.send_signal(number)

    def terminate(self) -> None:
        """Ask the process to shut down cleanly, also if it is paused."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)

    def wait(self, deadline: float) -> None:
        """Wait for the end of the process; when the deadline (monotonic) has passed, kill it."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the process at once (SIGKILL), as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def tail(self) -> str:
        """Return the last lines that the node printed and logged."""
        return "".join(_tail(path) for path in (self.directory / "output.log", self.log))

    def _java(
        self, main_class: str, arguments: list[str], more_options: tuple[str, ...] = ()
    ) -> subprocess.Popen[bytes]:
        temporary = self.directory / "tmp"  # native libraries are unpacked there
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        options = (
            *MEMORY,
            *self.options,
            *more_options,
            f"-Dlog4j2.configurationFile={LOG_CONFIGURATION}",
            f"-Dnextclick.kafka.log={self.log}",
            f"-Djava.io.tmpdir={temporary}",
        )
        command = self.runtime.command(main_class, arguments, options)
        with (self.directory / "output.log").open("wb") as output:
            return subprocess.Popen(  # its own session: a Ctrl-C at the terminal is not for it
                command if self.detached else [*bound_to_parent(), *command],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def await_started(nodes: Sequence[KafkaNode], deadline: float) -> None:
    """Wait until each node logged that it is up; raise KafkaStartError at the deadline."""
    while not all(node.has_started() for node in nodes):
        if time.monotonic() > deadline:
            tails = "\n".join(node.tail() for node in nodes)
            raise KafkaStartError(f"local Kafka was not up in time\n{tails}")
        time.sleep(POLL_SECONDS)


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on; another process may still take one of them first."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def is_free(port: int) -> bool:
    """Whether a broker could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def bound_to_parent() -> list[str]:
    """Return a prefix that has the kernel kill the process when this one ends, even by SIGKILL.

    The kernel watches the thread that started the process, hence only for the main thread.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None or threading.current_thread() is not threading.main_thread():
        return []
    return [setpriv, "--pdeathsig", "KILL", "--"]


def _tail(path: Path) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
        return file.read().decode("utf-8", errors="replace")
