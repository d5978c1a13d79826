"""The whole configuration: sections of all parts, and where each value came from."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import SettingsError as SourceError

from cli.settings_errors import SettingsError, explained
from stream.settings import KafkaSettings, ProcessingSettings, TopicSettings
from trainer.settings import TrainerSettings
from worker.settings import WorkerSettings

PREFIX: Final = "NEXTCLICK_"
_DELIMITER: Final = "__"
FLAG: Final = "flag"
# Both roles must read a click alike: what the worker is told, the trainer follows.
_FOLLOWS: Final = {
    "trainer.model": "worker.model",
    "trainer.dataset.idle_gap_minutes": "worker.sessions.idle_gap_minutes",
    "trainer.dataset.ttl_days": "worker.sessions.ttl_days",
}
DEFAULT: Final = "default"


class StoreSettings(BaseModel):
    """Where published models lie."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(
        default="nextclick-models",
        min_length=1,
        description="Folder or fsspec URL of the model store.",
    )


class MetricsSettings(BaseModel):
    """Where /metrics, /healthz and /readyz listen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to bind; loopback unless you say otherwise.",
    )
    worker_port: int = Field(
        default=9464, ge=0, le=65_535, description="Port of a worker; 0: any free."
    )
    trainer_port: int = Field(
        default=9465, ge=0, le=65_535, description="Port of the trainer; 0: any free."
    )


class Settings(BaseSettings):
    """Every setting of nextclick; construct it with `load_settings`."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter=_DELIMITER,
    )

    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    topics: TopicSettings = Field(default_factory=TopicSettings)
    processing: ProcessingSettings = Field(default_factory=ProcessingSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    trainer: TrainerSettings = Field(default_factory=TrainerSettings)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take only what `load_settings` has merged, which remembers each value's source."""
        return (init_settings,)


def load_settings(
    config: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Return the settings: flag > NEXTCLICK_… environment > TOML file > default.

    `overrides` are the flags by dotted name; those that are None were not given. Raises
    `SettingsError`, whose text names each wrong setting, its value and what is allowed.
    """
    return load_with_sources(config, overrides)[0]


def load_with_sources(
    config: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> tuple[Settings, dict[str, str]]:
    """Return the settings, and the source of each that is not a default, by dotted name."""
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for layer, source in _layers(config, overrides or {}):
        for path, value in _leaves(layer):
            _put(merged, path, value)
            name = ".".join(path)
            sources[name] = _variable(path) if source == PREFIX else source
    for follower, leader in _FOLLOWS.items():
        if leader in sources and follower not in sources:
            _put(merged, tuple(follower.split(".")), _get(merged, leader))
            sources[follower] = leader
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        raise explained(error, Settings, sources) from None
    _require_agreement(settings, sources)
    if settings.processing.guarantee == "exactly_once":
        _require_order(settings)
    return settings, sources


def _require_agreement(settings: Settings, sources: Mapping[str, str]) -> None:
    found = dict(values(settings))
    for follower, leader in _FOLLOWS.items():
        if found[follower] != found[leader]:
            raise SettingsError(
                f"{follower} = {found[follower]}: must be that of {leader} = {found[leader]}; "
                f"leave it out, then it follows (from {sources[follower]})"
            )


def _require_order(settings: Settings) -> None:
    kafka, processing = settings.kafka, settings.processing
    if kafka.delivery_timeout_ms >= processing.transaction_timeout_ms:
        raise SettingsError(
            f"processing.transaction_timeout_ms = {processing.transaction_timeout_ms}: must be "
            f"more than kafka.delivery_timeout_ms = {kafka.delivery_timeout_ms}, or brokers abort "
            "transactions that are still being delivered"
        )


def values(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting with its dotted name."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from values(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _layers(
    config: Path | None, overrides: Mapping[str, Any]
) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield the layers, weakest first, each with its name."""
    if config is not None:
        yield _from_file(config), str(config)
    yield _from_environment(), PREFIX
    flags: dict[str, Any] = {}
    for name, value in overrides.items():
        if value is not None:
            _put(flags, tuple(name.split(".")), value)
    yield flags, FLAG


def _from_file(config: Path) -> Mapping[str, Any]:
    if not config.is_file():
        raise SettingsError(f"--config {config}: there is no such file")
    try:
        return TomlConfigSettingsSource(Settings, toml_file=config)()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{config}: not TOML: {error}") from None


def _from_environment() -> Mapping[str, Any]:
    # The source ignores unknown sections in silence: a typing error would look like a default.
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX):
            section = name[len(PREFIX) :].lower().split(_DELIMITER)[0]
            if section not in Settings.model_fields:
                raise SettingsError(
                    f"{name}: unknown setting; {PREFIX}… names one of the sections "
                    f"{', '.join(Settings.model_fields)}"
                )
    try:
        return EnvSettingsSource(Settings)()
    except SourceError as error:
        raise _not_json(error) from None


def _not_json(error: SourceError) -> SettingsError:
    # The source names only the section, but its cause holds the text that it could not read.
    text = getattr(error.__cause__, "doc", None)
    for name, value in os.environ.items():
        if value == text and name.upper().startswith(PREFIX):
            return SettingsError(
                f"{name} = {value[:80]}: must be a JSON object; better set a single value, as "
                f"{name}{_DELIMITER}<NAME>"
            )
    return SettingsError(f"environment: {error}")


def _leaves(
    layer: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in layer.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _put(tree: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    for name in path[:-1]:
        below = tree.get(name)
        if not isinstance(below, dict):
            below = tree[name] = {}
        tree = below
    tree[path[-1]] = value


def _get(tree: Mapping[str, Any], name: str) -> Any:
    value: Any = tree
    for part in name.split("."):
        value = value[part]
    return value


def _variable(path: tuple[str, ...]) -> str:
    return PREFIX + _DELIMITER.join(path).upper()
