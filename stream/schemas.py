"""The JSON Schemas of the contracts, as files to be checked in; knows no topic."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from stream.messages import ClickEvent, DatedClick, ModelAnnouncement, Recommendation

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
CONTRACTS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "click_event.v1.json": ClickEvent,
    "model_announcement.v1.json": ModelAnnouncement,
    "recommendation.v1.json": Recommendation,
}


def schemas() -> dict[str, dict[str, Any]]:
    """Return the schema of each contract by the name of its file under docs/schemas."""
    return {name: _schema(contract) for name, contract in CONTRACTS.items()}


def file_text(schema: Mapping[str, Any]) -> str:
    """Return the text of a schema file."""
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


def _schema(contract: type[msgspec.Struct]) -> dict[str, Any]:
    # All definitions but the contract's own stay under $defs; its own is the document.
    _, parts = msgspec.json.schema_components([contract], ref_template="#/$defs/{name}")
    document = {"$schema": DIALECT, **parts.pop(contract.__name__)}
    if contract is ClickEvent:
        dated = _schema(DatedClick)["properties"]["timestamp"]
        number = document["properties"]["timestamp"]
        document["properties"]["timestamp"] = {"anyOf": [number, dated]}
    if parts:
        document["$defs"] = parts
    return document
