"""Which broker of a cluster has which role at the moment; it changes none of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeVar

from kafka import KafkaAdminClient
from kafka.errors import KafkaError, LeaderNotAvailableError
from kafka.protocol.metadata import CoordinatorType

from stream import clients
from stream.settings import KafkaSettings

Answer = TypeVar("Answer")

_PATIENCE_SECONDS = 30.0
_PAUSE_SECONDS = 0.2


class Roles:
    """Ask the brokers; answers are those of the moment, so ask right before a fault."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings

    def leader(self, topic: str, partition: int) -> int:
        """Return the broker that leads a partition."""

        def ask(admin: KafkaAdminClient) -> int:
            leader: int = _partitions(admin, [topic])[partition]["leader_id"]
            if leader < 0:
                raise LeaderNotAvailableError(f"{topic}/{partition}")
            return leader

        return self._patiently(ask)

    def fewest_in_sync(self, topics: list[str]) -> int:
        """Return the least number of replicas in sync over all partitions of the topics."""
        return self._patiently(
            lambda admin: min(len(p["isr_nodes"]) for p in _partitions(admin, topics))
        )

    def group_coordinator(self, group: str) -> int:
        """Return the broker that coordinates a consumer group."""
        return self._coordinator(CoordinatorType.GROUP, group)

    def transaction_coordinator(self, transactional_id: str) -> int:
        """Return the broker that coordinates the transactions of an id."""
        return self._coordinator(CoordinatorType.TRANSACTION, transactional_id)

    def transaction_state(self, transactional_id: str) -> str:
        """Return the state of the last transaction of an id, such as Ongoing or CompleteAbort."""

        def ask(admin: KafkaAdminClient) -> str:
            found = admin.describe_transactions([transactional_id])  # type: ignore[no-untyped-call]
            state: str = found[transactional_id].state.value
            return state

        return self._patiently(ask)

    def _coordinator(self, kind: CoordinatorType, key: str) -> int:
        def ask(admin: KafkaAdminClient) -> int:
            # The client looks coordinators up, but tells nobody.
            broker: int = admin._manager.run(admin._find_coordinator_id, key, kind)  # type: ignore[attr-defined]
            return broker

        return self._patiently(ask)

    def _patiently(self, ask: Callable[[KafkaAdminClient], Answer]) -> Answer:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                with closing(clients.admin(self._settings, client_id="roles")) as admin:
                    return ask(admin)
            except KafkaError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_SECONDS)


def _partitions(admin: KafkaAdminClient, topics: list[str]) -> list[dict[str, Any]]:
    return [
        partition
        for topic in admin.describe_topics(topics)
        for partition in sorted(topic["partitions"], key=lambda p: p["partition_index"])
    ]
