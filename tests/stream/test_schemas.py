"""The checked-in schemas: generated, compatible for ever, and true of the samples."""

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from stream.messages import decode_announcement, decode_click, decode_recommendation, encode
from stream.schemas import file_text, schemas

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "schemas"
RELEASED = sorted((FOLDER / "released").glob("*/*.json"))
SAMPLES = sorted((Path(__file__).parent / "samples").glob("*.json"))
DECODERS: dict[str, Callable[[bytes], Any]] = {
    "click_event": decode_click,
    "recommendation": decode_recommendation,
    "model_announcement": decode_announcement,
}
# A released schema never changes again: sha256 of each, in the order of their names.
RELEASED_SHA256 = {
    "0.1.0/click_event.v1.json": (
        "53ade4eb36e8369eefc9af5de8c6c9467f31c44017d87ca1b7270f18d70ee6e4"
    ),
    "0.1.0/model_announcement.v1.json": (
        "27981cd2890385c11d52fcb942696dbcb3c0d26f1acc691cc11fcb43b859ebc6"
    ),
    "0.1.0/recommendation.v1.json": (
        "74260465bb23db0fae0dabb7e658410a0ded0881a4cf4d84a89f5f2e870b4fc1"
    ),
}
_TEXTS = ("description", "title", "$schema")


def incompatibilities(old: Any, new: Any, path: str = "$") -> list[str]:
    """What in `new` old readers or old records could not bear.

    Both must hold (full compatibility), so everything stays as it is, except that an object may
    gain optional properties and texts may change.
    """
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = zip(_sorted(old), _sorted(new), strict=True)
        return [found for number, (a, b) in enumerate(pairs)
                for found in incompatibilities(a, b, f"{path}[{number}]")]  # fmt: skip
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new else [f"{path}: {old!r} became {new!r}"]
    may_gain = path.endswith((".properties", ".$defs"))
    found = []
    for key in (old.keys() | new.keys()) - (set() if may_gain else set(_TEXTS)):
        if key not in new:
            found.append(f"{path}.{key} removed")
        elif key not in old:
            found += [] if may_gain else [f"{path}.{key} added"]
        else:
            found += incompatibilities(old[key], new[key], f"{path}.{key}")
    return found


def _sorted(values: list[Any]) -> list[Any]:
    return sorted(values, key=lambda value: json.dumps(value, sort_keys=True))


def contract_of(file: Path) -> str:
    return file.name.split(".")[0]


def test_the_checked_in_schemas_are_those_of_the_code():
    generated = {name: file_text(schema) for name, schema in schemas().items()}

    assert {file.name: file.read_text() for file in FOLDER.glob("*.json")} == generated


def test_released_schemas_are_untouched():
    found = {
        f"{file.parent.name}/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest()
        for file in RELEASED
    }

    assert found == RELEASED_SHA256


@pytest.mark.parametrize("file", RELEASED, ids=lambda file: f"{file.parent.name}-{file.name}")
def test_the_contracts_are_compatible_with_every_release(file):
    assert incompatibilities(json.loads(file.read_text()), schemas()[file.name]) == []


def _remove_property(schema: dict[str, Any]) -> None:
    del schema["properties"]["session_id"]


def _retype(schema: dict[str, Any]) -> None:
    schema["properties"]["user_id"]["type"] = "integer"


def _narrow(schema: dict[str, Any]) -> None:
    schema["properties"]["user_id"]["maxLength"] = 64


def _add_limit(schema: dict[str, Any]) -> None:
    schema["properties"]["type"]["pattern"] = "^[a-z]+$"


def _require_more(schema: dict[str, Any]) -> None:
    schema["required"].append("session_id")


def _add_required(schema: dict[str, Any]) -> None:
    schema["properties"]["shop"] = {"type": "string"}
    schema["required"].append("shop")


def _require_less(schema: dict[str, Any]) -> None:
    schema["required"].remove("item_id")


def _narrow_choice(schema: dict[str, Any]) -> None:
    schema["properties"]["timestamp"]["anyOf"].pop()


def _change_default(schema: dict[str, Any]) -> None:
    schema["properties"]["consent"]["default"] = False


def _refuse_unknown(schema: dict[str, Any]) -> None:
    schema["additionalProperties"] = False


@pytest.mark.parametrize(
    "change",
    [_remove_property, _retype, _narrow, _add_limit, _require_more, _add_required, _require_less,
     _narrow_choice, _change_default, _refuse_unknown],
)  # fmt: skip
def test_an_incompatible_change_is_found(change):
    old = schemas()["click_event.v1.json"]
    new = copy.deepcopy(old)
    change(new)

    assert incompatibilities(old, new)


def test_a_change_inside_a_nested_contract_is_found():
    old = schemas()["recommendation.v1.json"]
    new = copy.deepcopy(old)
    new["$defs"]["RecommendedItem"]["properties"]["score"]["type"] = "string"

    assert incompatibilities(old, new) == [
        "$.$defs.RecommendedItem.properties.score.type: 'number' became 'string'"
    ]


def test_a_new_optional_field_and_a_new_text_are_compatible():
    old = schemas()["click_event.v1.json"]
    new = copy.deepcopy(old)
    new["properties"]["shop"] = {"type": "string", "default": ""}
    new["properties"]["title"] = {"type": "string", "default": ""}
    new["description"] = "Another text."

    assert incompatibilities(old, new) == []


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.name)
def test_records_of_past_versions_still_decode(file):
    message = DECODERS[contract_of(file)](file.read_bytes())

    assert DECODERS[contract_of(file)](encode(message)) == message


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.name)
def test_samples_and_what_we_write_of_them_satisfy_the_schema(file):
    contract = contract_of(file)
    schema = schemas()[f"{contract}.v1.json"]
    written = encode(DECODERS[contract](file.read_bytes()))

    jsonschema.validate(json.loads(file.read_text()), schema)
    jsonschema.validate(json.loads(written), schema)


def test_every_contract_has_samples():
    assert {contract_of(file) for file in SAMPLES} == set(DECODERS)
