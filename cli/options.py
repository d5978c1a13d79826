"""The options that several commands take, worded once; knows no command."""

from pathlib import Path
from typing import Annotated, Any

import typer

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML file with settings.", metavar="FILE")
]
BootstrapOption = Annotated[
    str | None,
    typer.Option("--bootstrap-servers", help="Kafka brokers, host:port[,…].", metavar="LIST"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def kafka_overrides(bootstrap_servers: str | None) -> dict[str, Any]:
    """Return the settings that the shared flags override."""
    return {"kafka.bootstrap_servers": bootstrap_servers}
