"""The topics and their properties: create, check, describe; knows nothing of their records."""

import time
from collections.abc import Mapping
from typing import Any, Final

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import TopicAlreadyExistsError
from msgspec import Struct, field

from stream.clients import admin
from stream.settings import KafkaSettings, TopicSettings

_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_UNKNOWN_TOPIC: Final = 3
_REPLICAS_FOR_TWO_IN_SYNC: Final = 3
_PAUSE_SECONDS: Final = 0.1
_CONFIGS: Final = (
    "cleanup.policy", "message.timestamp.type", "retention.ms", "max.message.bytes",
    "min.insync.replicas", "segment.ms", "delete.retention.ms", "max.compaction.lag.ms",
)  # fmt: skip


class TopicMismatchError(ValueError):
    """A topic is missing, or is not what the protocol needs; the message says what to do."""


class TopicPlan(Struct, frozen=True, kw_only=True):
    """What a topic should be; `any_policy` and `more_partitions` leave that to its owner."""

    name: str
    partitions: int
    replication_factor: int
    configs: Mapping[str, str]
    more_partitions: bool = False
    any_policy: bool = False


class TopicState(Struct, frozen=True, kw_only=True):
    """What a topic is; no partitions when it does not exist."""

    name: str
    partitions: int = 0
    replication_factor: int = 0
    configs: Mapping[str, str] = field(default_factory=dict)


def plan(topics: TopicSettings) -> list[TopicPlan]:
    """Return what each topic should be."""
    log_append = {"message.timestamp.type": "LogAppendTime"}
    wanted: list[tuple[str, int, dict[str, str], bool, bool]] = [
        (topics.clicks, topics.partitions, _expiring(topics.clicks_retention_hours) | log_append
         | {"max.message.bytes": str(topics.clicks_max_bytes)}, False, False),
        (topics.recommendations, topics.partitions,
         _expiring(topics.recommendations_retention_hours) | log_append, False, True),
        (topics.sessions, topics.partitions, _changelog(), False, False),
        (topics.models, 1, {"cleanup.policy": "compact"} | log_append, False, False),
        (topics.dead_letters, topics.partitions,
         _expiring(topics.dead_letters_retention_hours) | log_append, True, False),
    ]  # fmt: skip
    in_sync = 2 if topics.replication_factor >= _REPLICAS_FOR_TWO_IN_SYNC else 1
    return [
        TopicPlan(
            name=name,
            partitions=partitions,
            replication_factor=topics.replication_factor,
            configs=configs | {"min.insync.replicas": str(in_sync)},
            more_partitions=more_partitions,
            any_policy=any_policy,
        )
        for name, partitions, configs, more_partitions, any_policy in wanted
    ]


def ensure(
    settings: KafkaSettings, topics: TopicSettings, *, timeout_seconds: float = 30.0
) -> list[str]:
    """Create the topics that are missing; return the names of the created.

    Raises `TopicMismatchError`, and creates nothing, when an existing topic is not what it must
    be: nothing of an existing topic is ever changed here.
    """
    plans = plan(topics)
    timeout_ms = int(timeout_seconds * 1000)
    deadline = time.monotonic() + timeout_seconds
    with admin(settings) as client:
        found = [(wanted, _state(client, wanted.name)) for wanted in plans]
        _require([(wanted, state) for wanted, state in found if state.partitions])
        missing = [wanted for wanted, state in found if not state.partitions]
        created = [wanted.name for wanted in missing if _create(client, wanted, timeout_ms)]
        client.wait_for_topics([wanted.name for wanted in missing], timeout_ms=timeout_ms)
        _require([(wanted, _settled(client, wanted.name, deadline)) for wanted in missing])
    return created


def check(settings: KafkaSettings, topics: TopicSettings) -> None:
    """Raise `TopicMismatchError` when a topic is missing or is not what it must be."""
    _require(list(zip(plan(topics), describe(settings, topics), strict=True)))


def describe(settings: KafkaSettings, topics: TopicSettings) -> list[TopicState]:
    """Return what each topic is, in the order of the plan."""
    with admin(settings) as client:
        return [_state(client, wanted.name) for wanted in plan(topics)]


def mismatches(wanted: TopicPlan, found: TopicState) -> list[str]:
    """Return what about a topic breaks the protocol, each with what to do about it.

    Retention and sizes are the operator's: other values there are no mismatch.
    """
    if not found.partitions:
        return [f"topic {wanted.name} does not exist: run `nextclick topics ensure`"]
    wrong = []
    more = found.partitions > wanted.partitions and wanted.more_partitions
    if found.partitions != wanted.partitions and not more:
        wrong.append(
            f"topic {wanted.name} has {found.partitions} partitions, must have {wanted.partitions}:"
            f" set topics.partitions to what clicks, recommendations and sessions all have, or "
            f"delete {wanted.name} and run `nextclick topics ensure`"
        )
    policy, right = found.configs.get("cleanup.policy"), wanted.configs["cleanup.policy"]
    if not wanted.any_policy and policy != right:
        wrong.append(
            f"topic {wanted.name} has cleanup.policy = {policy}, must be {right}: change it with "
            f"`kafka-configs.sh --alter --topic {wanted.name} --add-config cleanup.policy={right}`"
        )
    return wrong


def _require(pairs: list[tuple[TopicPlan, TopicState]]) -> None:
    wrong = [text for wanted, found in pairs for text in mismatches(wanted, found)]
    if wrong:
        raise TopicMismatchError("\n".join(wrong))


def _create(client: KafkaAdminClient, wanted: TopicPlan, timeout_ms: int) -> bool:
    options = {
        "num_partitions": wanted.partitions,
        "replication_factor": wanted.replication_factor,
        "configs": dict(wanted.configs),
    }
    try:
        client.create_topics({wanted.name: options}, timeout_ms=timeout_ms)
    except TopicAlreadyExistsError:  # another process was quicker; the check below sees its work
        return False
    return True


def _settled(client: KafkaAdminClient, name: str, deadline: float) -> TopicState:
    """Return what a new topic is, once the broker that is asked has heard of all of it.

    With several brokers, one that has just come back lags behind the others.
    """
    while True:
        state = _state(client, name)
        if state.configs.get("cleanup.policy") or time.monotonic() > deadline:
            return state
        time.sleep(_PAUSE_SECONDS)


def _state(client: KafkaAdminClient, name: str) -> TopicState:
    (topic,) = client.describe_topics([name])
    if topic["error_code"] == _UNKNOWN_TOPIC or not topic["partitions"]:
        return TopicState(name=name)
    resource = ConfigResource(ConfigResourceType.TOPIC, name, dict.fromkeys(_CONFIGS, ""))
    entries: dict[str, Any] = client.describe_configs([resource], config_filter="all")
    return TopicState(
        name=name,
        partitions=len(topic["partitions"]),
        replication_factor=len(topic["partitions"][0]["replica_nodes"]),
        configs={key: entry["value"] for key, entry in entries["topic"][name].items()},
    )


def _expiring(hours: int) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(hours * _HOUR_MS)}


def _changelog() -> dict[str, str]:
    return {
        "cleanup.policy": "compact",
        "message.timestamp.type": "CreateTime",
        "segment.ms": str(_HOUR_MS),
        "delete.retention.ms": str(7 * _DAY_MS),
        "max.compaction.lag.ms": str(_DAY_MS),
    }
