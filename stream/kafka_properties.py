"""The configuration files of a local cluster; it knows no processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

CONTROLLER_ID = 1
LOOPBACK = "127.0.0.1"  # never `localhost`, which may also mean ::1
_PROTOCOLS = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT"


def broker_ids(brokers: int) -> list[int]:
    """Return the node ids: one combined node, or one controller (id 1) and brokers after it."""
    if brokers < 1:
        raise ValueError("a cluster has at least one broker")
    return [CONTROLLER_ID] if brokers == 1 else list(range(2, brokers + 2))


def bootstrap_servers(ports: Sequence[int]) -> str:
    """Return the address list that clients take."""
    return ",".join(f"{LOOPBACK}:{port}" for port in ports)


def node_properties(
    node_id: int, *, brokers: int, controller_port: int, port: int, directory: Path
) -> dict[str, str]:
    """Return the configuration of one node of a cluster with so many brokers."""
    is_controller = node_id == CONTROLLER_ID
    is_broker = node_id in broker_ids(brokers)
    listeners = [f"PLAINTEXT://{LOOPBACK}:{port}"] if is_broker else []
    if is_controller:
        listeners.append(f"CONTROLLER://{LOOPBACK}:{controller_port}")
    return {
        **_roles(is_broker=is_broker, is_controller=is_controller),
        "node.id": str(node_id),
        "controller.quorum.bootstrap.servers": f"{LOOPBACK}:{controller_port}",
        "listeners": ",".join(listeners),
        "advertised.listeners": ",".join(listeners),
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": _PROTOCOLS,
        "log.dirs": str(directory),
        **_replication(brokers),
        **_LOCAL,
        **(_QUICK_FAILOVER if brokers > 1 else {}),
    }


def _roles(*, is_broker: bool, is_controller: bool) -> dict[str, str]:
    if not is_broker:
        return {"process.roles": "controller"}
    roles = "broker,controller" if is_controller else "broker"
    return {"process.roles": roles, "inter.broker.listener.name": "PLAINTEXT"}


def _replication(brokers: int) -> dict[str, str]:
    factor, in_sync = (str(min(brokers, limit)) for limit in (3, 2))
    return {
        "default.replication.factor": factor,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": factor,
        "transaction.state.log.replication.factor": factor,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": factor,
        "share.coordinator.state.topic.min.isr": in_sync,
    }


_LOCAL = {  # small and quick, where the defaults are for a data centre
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "log.cleaner.dedupe.buffer.size": "16777216",  # the default is half of our whole heap
    "log.cleaner.backoff.ms": "1000",
}

_QUICK_FAILOVER = {
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "replica.lag.time.max.ms": "1000",
}
