"""Real Kafka brokers as local processes over one directory; it does not know topics."""

from __future__ import annotations

import atexit
import base64
import os
import shutil
import signal
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import msgspec
from kafka.errors import KafkaError

from stream import clients
from stream.kafka_aot import fast_start_options
from stream.kafka_node import KafkaNode, KafkaStartError, await_started, free_ports
from stream.kafka_properties import (
    CONTROLLER_ID,
    bootstrap_servers,
    broker_ids,
    node_properties,
)
from stream.kafka_runtime import KafkaRuntime, KafkaUnavailableError, ensure_runtime
from stream.settings import KafkaSettings

__all__ = [
    "KafkaDirectoryError",
    "KafkaStartError",
    "KafkaUnavailableError",
    "LocalKafka",
    "ensure_runtime",
    "wipe",
]

MARKER = ".nextclick-kafka.json"
PORT_ATTEMPTS = 3
START_SECONDS = 60.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.05


class KafkaDirectoryError(ValueError):
    """The directory holds something that is not this local Kafka's data."""


class _Marker(msgspec.Struct, frozen=True):
    """What makes a directory ours, and the cluster whose data it holds."""

    cluster_id: str
    brokers: int


class LocalKafka:
    """One broker, or a controller and several, on the loopback interface.

    Data stay in `directory`, so that a later start finds the same topics. `fast_start` trades
    the broker's top speed for its start time: benchmarks switch it off. A `detached` cluster
    outlives this process; any other ends with it, whichever way it ends.
    """

    def __init__(
        self,
        directory: Path,
        brokers: int = 1,
        fast_start: bool = True,
        *,
        runtime: KafkaRuntime | None = None,
        port: int | None = None,
        detached: bool = False,
    ) -> None:
        self.directory = directory.resolve()
        self.brokers = brokers
        self.broker_ids = broker_ids(brokers)
        self._fast_start = fast_start
        self._runtime = runtime
        self._port = port
        self._detached = detached
        self._nodes: dict[int, KafkaNode] = {}
        self._owner = 0

    def __enter__(self) -> LocalKafka:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def bootstrap_servers(self) -> str:
        """Address list for clients; only while started."""
        return bootstrap_servers([self._broker(broker_id).port for broker_id in self.broker_ids])

    @property
    def pids(self) -> dict[int, int]:
        """Process ids of the running nodes, by node id."""
        return {
            node_id: node.process.pid
            for node_id, node in self._nodes.items()
            if node.process is not None and node.alive
        }

    def start(self, timeout: float = START_SECONDS) -> None:
        """Start all nodes and wait until each broker serves clients.

        Raises KafkaUnavailableError without a runtime, KafkaDirectoryError for a directory that
        is not ours, KafkaStartError (with the log's tail) for a node that does not come up.
        """
        if self.pids:
            raise RuntimeError("already started")
        runtime = self._runtime or ensure_runtime()
        marker = _claim(self.directory, self.brokers)
        options = fast_start_options(runtime) if self._fast_start else ()
        for attempt in range(1, PORT_ATTEMPTS + 1):
            try:
                self._lay_out(runtime, options)
                self._run(marker.cluster_id, time.monotonic() + timeout)
                return
            except KafkaStartError as error:
                self.stop()
                collision = "Address already in use" in str(error)
                if not collision or self._port is not None or attempt == PORT_ATTEMPTS:
                    raise
            except BaseException:  # Ctrl-C: leave nothing running
                self.stop()
                raise

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Stop the brokers, then the controller: cleanly within the timeout, else by SIGKILL."""
        atexit.unregister(self._stop_at_exit)
        deadline = time.monotonic() + timeout
        controllers = [node for node_id, node in self._nodes.items() if node_id == CONTROLLER_ID]
        others = [node for node_id, node in self._nodes.items() if node_id != CONTROLLER_ID]
        for group in (others, controllers):  # brokers hand over to a controller that still runs
            for node in group:
                node.terminate()
            for node in group:
                node.wait(deadline)

    def kill(self, broker_id: int) -> None:
        """End a broker at once (SIGKILL), as a crash would."""
        self._broker(broker_id).kill()

    def restart(self, broker_id: int, timeout: float = START_SECONDS) -> None:
        """Start a broker again on its port and its data, stopping it first if it runs."""
        node = self._broker(broker_id)
        node.terminate()
        node.wait(time.monotonic() + STOP_SECONDS)
        node.start()
        self._await_ready([node], time.monotonic() + timeout)

    def pause(self, broker_id: int) -> None:
        """Freeze a broker (SIGSTOP): connected, but silent."""
        self._broker(broker_id).signal(signal.SIGSTOP)

    def resume(self, broker_id: int) -> None:
        """Let a paused broker go on (SIGCONT)."""
        self._broker(broker_id).signal(signal.SIGCONT)

    def _broker(self, broker_id: int) -> KafkaNode:
        if broker_id not in self._nodes or broker_id not in self.broker_ids:
            raise ValueError(f"no started broker {broker_id}; ids are {self.broker_ids}")
        return self._nodes[broker_id]

    def _lay_out(self, runtime: KafkaRuntime, options: tuple[str, ...]) -> None:
        """Choose ports and write each node's configuration."""
        controller_port, *ports = free_ports(1 + self.brokers)
        if self._port is not None:
            ports[0] = self._port
        port_of = {CONTROLLER_ID: controller_port, **dict(zip(self.broker_ids, ports, strict=True))}
        self._nodes = {}
        for node_id, port in port_of.items():
            directory = self.directory / str(node_id)
            node = KafkaNode(node_id, directory, port, runtime, options, self._detached)
            node.configure(
                node_properties(
                    node_id,
                    brokers=self.brokers,
                    controller_port=controller_port,
                    port=port,
                    directory=directory / "data",
                )
            )
            self._nodes[node_id] = node

    def _run(self, cluster_id: str, deadline: float) -> None:
        """Format and start the nodes that were laid out, and wait until they serve."""
        if not self._detached:
            self._owner = os.getpid()
            atexit.register(self._stop_at_exit)
        nodes = list(self._nodes.values())
        for node in nodes:
            node.begin_format(cluster_id)
        for node in nodes:
            node.end_format(deadline)
        for node in nodes:
            node.start()
        self._await_ready(nodes, deadline)

    def _await_ready(self, nodes: Sequence[KafkaNode], deadline: float) -> None:
        await_started(nodes, deadline)
        brokers = {node.node_id for node in nodes} & set(self.broker_ids)
        servers = bootstrap_servers([self._broker(broker_id).port for broker_id in brokers])
        while not brokers <= _visible_brokers(servers):
            if time.monotonic() > deadline:
                raise KafkaStartError(f"brokers {brokers} did not join\n{nodes[-1].tail()}")
            time.sleep(POLL_SECONDS)

    def _stop_at_exit(self) -> None:
        if os.getpid() == self._owner:  # not in a forked child
            self.stop()


def wipe(directory: Path) -> bool:
    """Remove a local Kafka's directory; raise KafkaDirectoryError if it is not one.

    Returns whether there was one.
    """
    if not directory.exists():
        return False
    if not (directory / MARKER).exists():
        raise KafkaDirectoryError(f"{directory} is not a local Kafka's directory: left as it is")
    shutil.rmtree(directory)
    return True


def _claim(directory: Path, brokers: int) -> _Marker:
    """Mark an empty directory as ours, or read the mark of one that is."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / MARKER
    if path.exists():
        try:
            marker = msgspec.json.decode(path.read_bytes(), type=_Marker)
        except msgspec.DecodeError as error:
            raise KafkaDirectoryError(f"{path} is damaged: {error}") from error
        if marker.brokers != brokers:
            raise KafkaDirectoryError(
                f"{directory} holds the data of {marker.brokers} broker(s), not of {brokers}"
            )
        return marker
    if any(directory.iterdir()):
        raise KafkaDirectoryError(f"{directory} is not empty and not a local Kafka's directory")
    marker = _Marker(_new_cluster_id(), brokers)
    path.write_bytes(msgspec.json.encode(marker))
    return marker


def _new_cluster_id() -> str:
    """Return a Kafka Uuid; an `a` in front, since the format tool takes `-…` for an option."""
    return "a" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]


def _visible_brokers(servers: str) -> set[int]:
    """Return the ids of the brokers that the cluster describes; none if it does not answer."""
    settings = KafkaSettings(bootstrap_servers=servers, bootstrap_timeout_ms=2000)
    try:
        client = clients.admin(settings)
    except KafkaError:
        return set()
    try:
        return {broker["broker_id"] for broker in client.describe_cluster()["brokers"]}
    except KafkaError:
        return set()
    finally:
        client.close()
