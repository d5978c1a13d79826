"""The settings of a demo run: the user's, and where those are silent, a quicker pace."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.demo_home import DemoHome
from cli.settings import Settings, load_settings, load_with_sources, values

_PUBLISH_SECONDS = 12.0
_SHORTEST_PUBLISH_SECONDS = 2.0
_VERSIONS_IN_A_SHORT_RUN = 6
_DELTAS_PER_BUNDLE = 4
# Simulated users and compressed logs click faster than people do.
_USER_CLICKS_PER_HOUR = 100_000
# Sessions of every version can then be compared at the end; 100 are some 100 MB.
_KEEP_BUNDLES = 100


@dataclass(frozen=True)
class Place:
    """The broker of a run; on a `borrowed` one every name gets a prefix of its own."""

    bootstrap_servers: str
    borrowed: bool
    partitions: int | None = None


def demo_settings(
    config: Path | None, home: DemoHome, place: Place, *, seconds: float | None
) -> Settings:
    """Return the settings of both roles; raises SettingsError.

    Places and names are the demo's, everything else the user's where it is set.
    """
    fixed = _fixed(home, place)
    _, sources = load_with_sources(config, fixed)
    pace = {name: value for name, value in _pace(seconds).items() if name not in sources}
    return load_settings(config, fixed | pace)


def _fixed(home: DemoHome, place: Place) -> dict[str, Any]:
    from stream.kafka_node import free_ports

    worker_port, trainer_port = free_ports(2)
    fixed: dict[str, Any] = {
        "kafka.bootstrap_servers": place.bootstrap_servers,
        "topics.partitions": place.partitions,
        "store.url": str(home.models),
        "trainer.checkpoint_dir": str(home.checkpoints),
        "metrics.host": "127.0.0.1",
        "metrics.worker_port": worker_port,
        "metrics.trainer_port": trainer_port,
    }
    return fixed | (_prefixed_names() if place.borrowed else {})


def _prefixed_names() -> dict[str, Any]:
    prefix = f"nextclick-demo-{secrets.token_hex(4)}"
    topics = ("clicks", "recommendations", "sessions", "models")
    return {
        "kafka.app": prefix,
        **{f"topics.{name}": f"{prefix}-{name}" for name in topics},
        "topics.dead_letters": f"{prefix}-clicks.dlq",
    }


def _pace(seconds: float | None) -> dict[str, Any]:
    """Return what lets several versions serve within minutes."""
    publish_seconds = _PUBLISH_SECONDS
    if seconds is not None:
        publish_seconds = min(publish_seconds, seconds / _VERSIONS_IN_A_SHORT_RUN)
    publish_seconds = max(publish_seconds, _SHORTEST_PUBLISH_SECONDS)
    return {
        "trainer.publish_seconds": publish_seconds,
        "trainer.delta_seconds": publish_seconds / _DELTAS_PER_BUNDLE,
        "trainer.keep_bundles": _KEEP_BUNDLES,
        "trainer.dataset.batch_seconds": min(2.0, publish_seconds / 4),
        "trainer.dataset.user_clicks_per_hour": _USER_CLICKS_PER_HOUR,
        "trainer.gate.min_clicks": 200,
    }


def write_settings(settings: Settings, file: Path) -> None:
    """Write what differs from the defaults as TOML, for its owner only: it may hold passwords."""
    defaults = dict(values(Settings()))
    lines = [
        f"{name} = {_toml(value)}\n"
        for name, value in values(settings)
        if value is not None and value != defaults[name]
    ]
    file.touch(mode=0o600)
    file.write_text("".join(lines), encoding="utf-8")


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        inner = (f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items())
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, Path):
        value = str(value)
    return json.dumps(value, ensure_ascii=False)
