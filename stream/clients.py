"""The only constructors of consumers, producers and admin clients; knows no topic and no message.

The values are the guarantees' (D-numbers: known defects of the client, see the faults tests).
No deserialisers anywhere: an exception inside poll() hangs the next one (D6).
"""

import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import (
    KafkaConfigurationError,
    KafkaConnectionError,
    KafkaTimeoutError,
    RetriableError,
)
from kafka.errors import KafkaError as KafkaError  # what all clients raise, for callers elsewhere

from stream.settings import KafkaSettings, ProcessingSettings

Client = TypeVar("Client")
Isolation = Literal["read_committed", "read_uncommitted"]

_MIB: Final = 1024 * 1024
_PROBE_SECONDS: Final = 2.0
_ANY_WORKER: Final = ProcessingSettings()
_OLDEST_BROKER: Final = (3, 0)


class KafkaUnreachableError(RetriableError):
    """No broker answered in time; the message names the setting and the addresses."""

    def __str__(self) -> str:
        return str(self.args[0])


def click_consumer(
    settings: KafkaSettings,
    processing: ProcessingSettings = _ANY_WORKER,
    *,
    client_id: str,
    max_poll_records: int = 500,
) -> KafkaConsumer:
    """Return a member of the workers' group; subscribe it with a rebalance listener."""
    member = f"{settings.app}-{processing.slot}" if processing.static_members else None
    return _open(settings, KafkaConsumer, {
        **_group_config(settings, client_id, max_poll_records),
        "group_id": settings.app,
        "group_instance_id": member,
    })  # fmt: skip


def trainer_consumer(
    settings: KafkaSettings, *, client_id: str, max_poll_records: int = 500
) -> KafkaConsumer:
    """Return a member of the trainer's group."""
    return _open(settings, KafkaConsumer, {
        **_group_config(settings, client_id, max_poll_records),
        "group_id": f"{settings.app}-trainer",
    })  # fmt: skip


def dead_letter_consumer(settings: KafkaSettings, *, client_id: str) -> KafkaConsumer:
    """Return a member of the group that remembers which dead letters were replayed."""
    return _open(settings, KafkaConsumer, {
        **_group_config(settings, client_id, max_poll_records=500),
        "group_id": f"{settings.app}-dlq-replay",
    })  # fmt: skip


def reader(
    settings: KafkaSettings, *, client_id: str, isolation: Isolation = "read_committed"
) -> KafkaConsumer:
    """Return a consumer without group: assign its partitions and seek before the first poll."""
    return _open(settings, KafkaConsumer, {
        "fetch_max_wait_ms": 500,  # a reply comes with the first record; this is only the idle beat
        **_consumer_config(settings, client_id),
        "isolation_level": isolation,
        "group_id": None,
    })  # fmt: skip


def producer(settings: KafkaSettings, *, client_id: str) -> KafkaProducer:
    """Return an idempotent producer: flush it, then check every future, before any commit."""
    return _open(settings, KafkaProducer, _producer_config(settings, client_id))


def transactional_producer(
    settings: KafkaSettings, processing: ProcessingSettings, *, client_id: str, slot: str
) -> KafkaProducer:
    """Return a producer of transactions that is not initialised; `slot` is unique in the group.

    A restarted process with the same slot ends its predecessor's transaction at once instead of
    after its timeout. Raises KafkaConfigurationError for brokers before 3.0: their fencing lets a
    replaced producer take its id back (D13).
    """
    producer = _open(settings, KafkaProducer, {
        **_producer_config(settings, client_id),
        "transactional_id": f"{settings.app}-{slot}",
        "transaction_timeout_ms": processing.transaction_timeout_ms,
    })  # fmt: skip
    version: tuple[int, ...] = producer.config["api_version"]
    if version < _OLDEST_BROKER:
        producer.close(timeout=0)
        raise KafkaConfigurationError(
            f"processing.guarantee = exactly_once: needs brokers of Kafka 3.0 or newer, these "
            f"speak {'.'.join(map(str, version))}"
        )
    return producer


def admin(settings: KafkaSettings, *, client_id: str = "nextclick-admin") -> KafkaAdminClient:
    """Return an admin client; it connects with the security settings of `kafka.consumer`."""
    known = KafkaAdminClient.DEFAULT_CONFIG
    return _open(settings, KafkaAdminClient, {
        **{key: value for key, value in settings.consumer.items() if key in known},
        **_connection(settings, client_id),
        "request_timeout_ms": settings.request_timeout_ms,
    })  # fmt: skip


def _producer_config(settings: KafkaSettings, client_id: str) -> dict[str, Any]:
    """Return the producer's settings; linger + request < delivery is checked by the settings."""
    return {
        # One batch a partition and flush: once a second one waits, the client wakes its sender, a
        # system call, at every record (6 % of the worker's CPU at 128 KiB).
        "batch_size": 524_288,
        "max_block_ms": settings.delivery_timeout_ms,
        "retry_backoff_ms": 10,  # D8: the client sleeps this long on CONCURRENT_TRANSACTIONS
        **settings.producer,
        **_connection(settings, client_id),
        "enable_idempotence": True,  # explicit, or a conflict turns it off with only a warning
        "acks": "all",
        "delivery_timeout_ms": settings.delivery_timeout_ms,
        "request_timeout_ms": settings.request_timeout_ms,
        "linger_ms": settings.linger_ms,
        "compression_type": None if settings.compression == "none" else settings.compression,
        "allow_auto_create_topics": False,
    }


def _group_config(settings: KafkaSettings, client_id: str, max_poll_records: int) -> dict[str, Any]:
    return {
        "fetch_max_wait_ms": 50,
        **_consumer_config(settings, client_id),
        "isolation_level": "read_committed",  # this alone turns require_stable on
        "max_poll_records": max_poll_records,
        "max_poll_interval_ms": settings.max_poll_interval_ms,
        # Cooperative members may keep partitions that they have lost (docs/guarantees.md).
        "partition_assignment_strategy": [RangePartitionAssignor],
        "session_timeout_ms": settings.session_timeout_ms,
        "heartbeat_interval_ms": settings.heartbeat_interval_ms,
    }


def _consumer_config(settings: KafkaSettings, client_id: str) -> dict[str, Any]:
    return {
        "fetch_max_bytes": 16 * _MIB,
        "max_partition_fetch_bytes": 2 * _MIB,
        **settings.consumer,
        **_connection(settings, client_id),
        "enable_auto_commit": False,
        "auto_offset_reset": "none",  # earliest and latest reset silently when out of range
        "allow_auto_create_topics": False,
    }


def _connection(settings: KafkaSettings, client_id: str) -> dict[str, Any]:
    return {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "bootstrap_timeout_ms": settings.bootstrap_timeout_ms,
        "client_id": client_id,
    }


def _open(
    settings: KafkaSettings, kind: Callable[..., Client], config: Mapping[str, Any]
) -> Client:
    """Construct a client within a bounded time, or raise `KafkaUnreachableError`."""
    _probe(settings)
    try:
        return kind(**config)
    except (KafkaTimeoutError, KafkaConnectionError) as error:
        raise KafkaUnreachableError(
            f"kafka.bootstrap_servers = {settings.bootstrap_servers}: a port is open there, but no "
            f"Kafka broker answered within {settings.bootstrap_timeout_ms / 1000:g} s. Check that "
            "it is a broker's listener and that security_protocol, SASL and TLS settings match it"
        ) from error


def _probe(settings: KafkaSettings) -> None:
    """Knock at the addresses ourselves: the client reports every cause as the same timeout."""
    deadline = time.monotonic() + settings.bootstrap_timeout_ms / 1000
    causes = []
    for address in settings.bootstrap_servers.split(","):
        host, _, port = address.rpartition(":")
        left = deadline - time.monotonic()
        if left <= 0:
            break
        try:
            socket.create_connection((host, int(port)), min(left, _PROBE_SECONDS)).close()
        except OSError as error:
            causes.append(f"{address}: {error.strerror or error}")
        else:
            return
    raise KafkaUnreachableError(
        f"kafka.bootstrap_servers = {settings.bootstrap_servers}: no broker can be reached "
        f"({'; '.join(causes)}). Start one with `nextclick kafka up`, or correct the setting"
    )
