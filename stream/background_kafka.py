"""The local Kafka that outlives its starter: recorded, found and stopped; Linux only.

It does not know how brokers are started.
"""

import fcntl
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from stream.kafka_properties import CONTROLLER_ID
from stream.local_kafka import STOP_SECONDS, LocalKafka

STATE_FILE = "state.json"


class AlreadyUpError(RuntimeError):
    """A background Kafka runs, or another process is starting or stopping it."""


class BackgroundNode(msgspec.Struct, frozen=True):
    """One process; its start time tells it from a later one with the same id."""

    node_id: int
    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return _start_time(self.pid) == self.started


class BackgroundKafka(msgspec.Struct, frozen=True):
    """The cluster that was brought up last; its processes may have ended since."""

    bootstrap_servers: str
    directory: str
    brokers: int
    nodes: tuple[BackgroundNode, ...]

    @property
    def running(self) -> bool:
        """Whether any of its processes runs."""
        return any(node.alive for node in self.nodes)


def state_directory() -> Path:
    """Return where this user's background Kafka is recorded and, by default, keeps its data."""
    root = os.environ.get("XDG_STATE_HOME")
    return Path(root or Path.home() / ".local" / "state") / "nextclick" / "kafka"


def recorded(state: Path | None = None) -> BackgroundKafka | None:
    """Return the cluster that was brought up last, or None if there is no (readable) record."""
    try:
        content = ((state or state_directory()) / STATE_FILE).read_bytes()
        return msgspec.json.decode(content, type=BackgroundKafka)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def running_bootstrap_servers(state: Path | None = None) -> str | None:
    """Return the address list of the background Kafka, or None if it does not run."""
    kafka = recorded(state)
    return kafka.bootstrap_servers if kafka is not None and kafka.running else None


def bring_up(kafka: LocalKafka, state: Path | None = None) -> BackgroundKafka:
    """Start a detached cluster and record its processes; raise AlreadyUpError if one runs."""
    state = state or state_directory()
    with _exclusive(state):
        known = recorded(state)
        if known is not None and known.running:
            raise AlreadyUpError(f"already up at {known.bootstrap_servers}")
        kafka.start()
        started = BackgroundKafka(
            bootstrap_servers=kafka.bootstrap_servers,
            directory=str(kafka.directory),
            brokers=kafka.brokers,
            nodes=tuple(
                BackgroundNode(node_id, pid, _start_time(pid) or 0)
                for node_id, pid in kafka.pids.items()
            ),
        )
        _record(started, state)
        return started


def take_down(state: Path | None = None, timeout: float = STOP_SECONDS) -> BackgroundKafka | None:
    """Stop exactly the recorded processes, brokers first; the data and the record stay."""
    state = state or state_directory()
    with _exclusive(state):
        kafka = recorded(state)
        if kafka is None or not kafka.running:
            return None
        deadline = time.monotonic() + timeout
        brokers = [node for node in kafka.nodes if node.node_id != CONTROLLER_ID]
        controllers = [node for node in kafka.nodes if node.node_id == CONTROLLER_ID]
        _end(brokers, deadline)
        _end(controllers, deadline)
        return kafka


def _end(nodes: list[BackgroundNode], deadline: float) -> None:
    """Ask all to end, then wait for each, and kill it when the deadline has passed.

    A pidfd means one process for ever, so that no signal can reach a successor of its id.
    """
    handles = [handle for node in nodes if (handle := _open(node)) is not None]
    try:
        for handle in handles:
            _send(handle, signal.SIGTERM)
            _send(handle, signal.SIGCONT)
        for handle in handles:
            if not _ended(handle, max(0.0, deadline - time.monotonic())):
                _send(handle, signal.SIGKILL)
                _ended(handle, STOP_SECONDS)
    finally:
        for handle in handles:
            os.close(handle)


def _open(node: BackgroundNode) -> int | None:
    try:
        handle = os.pidfd_open(node.pid)
    except ProcessLookupError:
        return None
    if node.alive:
        return handle
    os.close(handle)
    return None


def _send(handle: int, number: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return  # it has ended meanwhile


def _ended(handle: int, seconds: float) -> bool:
    """Wait so long for the end of a process; a pidfd is readable from then on."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _start_time(pid: int) -> int | None:
    """Return when a process started, in ticks since boot; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces
    state, started = fields[0], fields[19]
    return None if state == "Z" else int(started)


def _record(kafka: BackgroundKafka, state: Path) -> None:
    temporary = state / f".{STATE_FILE}"
    temporary.write_bytes(msgspec.json.encode(kafka))
    temporary.replace(state / STATE_FILE)


@contextmanager
def _exclusive(state: Path) -> Iterator[None]:
    """Hold the right to start and stop; raise AlreadyUpError while another process has it."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyUpError("another command is starting or stopping Kafka") from error
        yield
