"""Wrong settings in words: which one, its value, what is allowed; knows no particular setting."""

import difflib
import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

MASKED: Final = "***"
_SECRET_WORDS: Final = ("password", "secret", "token")
_MAX_SHOWN: Final = 80

# What is allowed, by pydantic's type of error; the braces are filled from its context.
_ALLOWED: Final = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "literal_error": "must be one of {expected}",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_short": "must not be empty",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "dict_type": "must be a table of settings",
    "model_type": "must be a table of settings",
}


class SettingsError(ValueError):
    """The configuration is wrong; the text says what and how to mend it."""


def explained(
    error: ValidationError, root: type[BaseModel], sources: Mapping[str, str]
) -> SettingsError:
    """Return one line for each mistake that pydantic found."""
    return SettingsError("\n".join(_line(one, root, sources) for one in error.errors()))


def shown(name: str, value: object) -> object:
    """Return `value` as it may be printed: secrets masked, also inside pass-through maps."""
    if any(word in name.lower() for word in _SECRET_WORDS) and value is not None:
        return MASKED
    if isinstance(value, Mapping):
        return {key: shown(str(key), inner) for key, inner in value.items()}
    return value


def _line(one: ErrorDetails, root: type[BaseModel], sources: Mapping[str, str]) -> str:
    name = ".".join(map(str, one["loc"]))
    source = sources.get(name)
    origin = f" (from {source})" if source else ""
    context: Mapping[str, Any] = one.get("ctx", {})
    if one["type"] == "extra_forbidden":
        return f"{name}: unknown setting; {_alternatives(one['loc'], root)}{origin}"
    if one["type"] == "value_error":  # a validator of ours: its text begins with the key
        key = f"{name}.{re.split('[ :]', str(context['error']))[0]}"
        if key in sources:
            return f"{name}.{context['error']} (from {sources[key]})"
        return f"{name}: {context['error']}{origin}"
    allowed = _ALLOWED.get(one["type"], one["msg"]).format(**context)
    if one["type"] == "string_pattern_mismatch":
        allowed += f" ({_field_of(one['loc'], root).description})"
    value = str(shown(name, one["input"]))
    return f"{name} = {value[:_MAX_SHOWN]}: {allowed}{origin}"


def _alternatives(loc: tuple[int | str, ...], root: type[BaseModel]) -> str:
    section: Any = _field_of(loc[:-1], root).annotation if loc[:-1] else root
    names = list(section.model_fields)
    close = difflib.get_close_matches(str(loc[-1]), names, n=1)
    return f"did you mean {close[0]}?" if close else f"known here: {', '.join(names)}"


def _field_of(loc: tuple[int | str, ...], root: type[BaseModel]) -> FieldInfo:
    section: Any = root
    for part in loc[:-1]:
        section = section.model_fields[str(part)].annotation
    found: FieldInfo = section.model_fields[str(loc[-1])]
    return found
