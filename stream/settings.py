"""Settings of the Kafka side: clients and topics; knows nothing of files, environment or flags."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from kafka import KafkaConsumer, KafkaProducer
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

TopicName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,90}$")]

# Keys that carry a guarantee or that this program sets from its own settings: each would
# silently weaken the commit protocol or contradict another setting.
_REFUSED_EVERYWHERE: Final = frozenset({
    "bootstrap_servers", "client_id", "allow_auto_create_topics", "kafka_client", "selector",
    "metric_reporters", "ssl_context", "sasl_oauth_token_provider", "socket_options",
})  # fmt: skip
_REFUSED_CONSUMER: Final = _REFUSED_EVERYWHERE | {
    "group_id", "enable_auto_commit", "auto_commit_interval_ms", "auto_offset_reset",
    "isolation_level", "key_deserializer", "value_deserializer", "check_crcs",
    "session_timeout_ms", "heartbeat_interval_ms", "max_poll_interval_ms", "max_poll_records",
    "consumer_timeout_ms", "default_offset_commit_callback", "partition_assignment_strategy",
    "exclude_internal_topics",
}  # fmt: skip
_REFUSED_PRODUCER: Final = _REFUSED_EVERYWHERE | {
    "acks", "enable_idempotence", "transactional_id", "transaction_timeout_ms", "retries",
    "max_in_flight_requests_per_connection", "key_serializer", "value_serializer", "partitioner",
    "delivery_timeout_ms", "request_timeout_ms", "linger_ms", "compression_type",
}  # fmt: skip

_REASONS: Final = {
    "partition_assignment_strategy": "range is the only certified assignor; the client of a "
    "cooperative member may keep partitions that it has lost (docs/guarantees.md)",
}

# These defaults are None, so their type cannot be read from the client's own table.
_INT_WITHOUT_DEFAULT: Final = frozenset({"receive_buffer_bytes", "send_buffer_bytes"})


class KafkaSettings(BaseModel):
    """How clients reach Kafka and how long they wait; used by `stream/clients.py`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bootstrap_servers: str = Field(
        default="127.0.0.1:9092",
        pattern=r"^[^\s,]+:\d+(,[^\s,]+:\d+)*$",
        description="Brokers to start from: host:port, several separated by commas.",
    )
    app: str = Field(
        default="nextclick",
        pattern=r"^[a-zA-Z0-9._-]{1,64}$",
        description="Consumer group of the workers; the trainer's is <app>-trainer.",
    )
    bootstrap_timeout_ms: int = Field(
        default=8_000,
        ge=1_000,
        le=60_000,
        description="Longest wait for the first answer of a broker.",
    )
    session_timeout_ms: int = Field(
        default=10_000,
        ge=1_000,
        le=300_000,
        description="Silence after which the group drops a member.",
    )
    heartbeat_interval_ms: int = Field(
        default=1_000,
        ge=100,
        le=60_000,
        description="Pause between heartbeats; below a third of session.",
    )
    max_poll_interval_ms: int = Field(
        default=60_000,
        ge=1_000,
        le=3_600_000,
        description="Longest pause between polls; rebalance limit.",
    )
    delivery_timeout_ms: int = Field(
        default=8_000,
        ge=1_000,
        le=120_000,
        description="Time to get a record acknowledged, with retries.",
    )
    request_timeout_ms: int = Field(
        default=5_000, ge=500, le=60_000, description="Longest wait for one produce or admin reply."
    )
    linger_ms: int = Field(
        default=5,
        ge=0,
        le=1_000,
        description="Wait for more records before a produce request is sent.",
    )
    compression: Literal["none", "lz4", "zstd", "snappy", "gzip"] = Field(
        default="lz4", description="Codec of produced batches."
    )
    consumer: dict[str, Any] = Field(
        default_factory=dict,
        description="Further kafka-python consumer settings, such as security_protocol.",
    )
    producer: dict[str, Any] = Field(
        default_factory=dict,
        description="Further kafka-python producer settings, such as security_protocol.",
    )

    @field_validator("consumer", "producer")
    @classmethod
    def _pass_through(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if info.field_name == "consumer":
            return _converted(given, KafkaConsumer.DEFAULT_CONFIG, _REFUSED_CONSUMER)
        return _converted(given, KafkaProducer.DEFAULT_CONFIG, _REFUSED_PRODUCER)

    @model_validator(mode="after")
    def _order_of_waits(self) -> Self:
        if self.heartbeat_interval_ms * 3 >= self.session_timeout_ms:
            raise ValueError(
                f"heartbeat_interval_ms = {self.heartbeat_interval_ms}: must be less than a third "
                f"of session_timeout_ms = {self.session_timeout_ms}"
            )
        if self.linger_ms + self.request_timeout_ms >= self.delivery_timeout_ms:
            raise ValueError(
                f"delivery_timeout_ms = {self.delivery_timeout_ms}: must be more than linger_ms + "
                f"request_timeout_ms = {self.linger_ms + self.request_timeout_ms}"
            )
        return self


class ProcessingSettings(BaseModel):
    """What a worker promises, and who it is among the workers; used by `stream/clients.py`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    guarantee: Literal["at_least_once", "exactly_once"] = Field(
        default="at_least_once",
        description="exactly_once commits each batch as one Kafka transaction; readers must be "
        "read_committed.",
    )
    slot: str = Field(
        default="",
        pattern=r"^[a-zA-Z0-9._-]{0,64}$",
        description="Lasting name of this worker process, unique in its group and the same after "
        "a restart, such as a StatefulSet's pod name. Empty: a new one at each start.",
    )
    static_members: bool = Field(
        default=False,
        description="Keep the slot's partitions for it over a restart (group.instance.id).",
    )
    transaction_timeout_ms: int = Field(
        default=15_000,
        ge=2_000,
        le=900_000,
        description="When brokers abort a transaction that its worker does not finish.",
    )

    @model_validator(mode="after")
    def _static_needs_slot(self) -> Self:
        if self.static_members and not self.slot:
            raise ValueError("static_members = true: needs a slot, which survives a restart")
        return self


class TopicSettings(BaseModel):
    """Names and properties of the topics; used by `stream/topics.py`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clicks: TopicName = Field(default="clicks", description="Topic that clicks are read from.")
    recommendations: TopicName = Field(
        default="recommendations", description="Topic that recommendations are written to."
    )
    sessions: TopicName = Field(
        default="sessions", description="Compacted changelog of the session states."
    )
    models: TopicName = Field(
        default="models", description="Compacted topic of model announcements."
    )
    dead_letters: TopicName = Field(
        default="clicks.dlq", description="Topic that clicks that cannot be used are written to."
    )
    partitions: int = Field(
        default=4, ge=1, le=1_000, description="Partitions of clicks, recommendations and sessions."
    )
    replication_factor: int = Field(default=1, ge=1, le=9, description="Copies of every partition.")
    clicks_retention_hours: int = Field(
        default=168, ge=1, le=720, description="How long clicks are kept (at most 30 days)."
    )
    clicks_max_bytes: int = Field(
        default=4 * 1024 * 1024,
        ge=1024 * 1024,
        le=64 * 1024 * 1024,
        description="Largest click record the broker takes; what is too large becomes a dead "
        "letter instead of an error at the producer.",
    )
    recommendations_retention_hours: int = Field(
        default=24, ge=1, le=720, description="How long recommendations are kept."
    )
    dead_letters_retention_hours: int = Field(
        default=240, ge=1, le=720, description="How long dead letters are kept."
    )

    @model_validator(mode="after")
    def _distinct_names(self) -> Self:
        names = [self.clicks, self.recommendations, self.sessions, self.models, self.dead_letters]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"topic {twice[0]!r} is named twice: each topic needs its own name")
        return self


def _converted(
    given: Mapping[str, Any], defaults: Mapping[str, Any], refused: frozenset[str]
) -> dict[str, Any]:
    """Check the keys of a pass-through map; turn strings into the type of the client's default."""
    out = {}
    for key, value in given.items():
        if key in refused:
            reason = _REASONS.get(key, "set by nextclick itself, it cannot be passed through")
            raise ValueError(f"{key}: {reason}")
        if key not in defaults:
            raise ValueError(f"{key}: kafka-python has no such setting")
        out[key] = _as_type_of(defaults[key], key, value) if isinstance(value, str) else value
    return out


def _as_type_of(default: object, key: str, text: str) -> object:
    """Convert `text`, as it arrives from the environment, by the client's default for `key`."""
    if isinstance(default, bool):
        if text.lower() not in ("true", "false", "1", "0"):
            raise ValueError(f"{key} = {text!r}: must be true or false")
        return text.lower() in ("true", "1")
    if key == "api_version":
        return tuple(_number(int, key, part) for part in text.split("."))
    if isinstance(default, int) or key in _INT_WITHOUT_DEFAULT:
        return _number(int, key, text)
    if isinstance(default, float):
        return _number(float, key, text)
    return text


def _number(kind: type[int] | type[float], key: str, text: str) -> int | float:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{key} = {text!r}: must be a number") from None
