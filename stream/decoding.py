"""Why bytes are not a record: the reasons of the input taxonomy; knows no contract."""

import codecs
import json
import math
from typing import Final, Literal, Never

import msgspec

DecodeReason = Literal[
    "malformed", "hostile", "range", "encoding", "type", "missing", "id", "oversize"
]

_SHOWN_CHARS: Final = 20
_BYTE_ORDER_MARKS: Final = (
    codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE,
)  # fmt: skip


class DecodeError(ValueError):
    """Bytes that are not the record they should be, with the reason and the bytes themselves."""

    def __init__(self, reason: DecodeReason, detail: str, value: bytes | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: DecodeReason = reason
        self.detail = detail
        self.value = value


class _NotFiniteError(ValueError):
    pass


def classify(value: bytes, error: Exception) -> DecodeError:
    """Return the `DecodeError` for what msgspec raised on `value`; cold path, reads it again."""
    reason, detail = _reason(value, error)
    return DecodeError(reason, detail, value)


def _reason(value: bytes, error: Exception) -> tuple[DecodeReason, str]:
    # msgspec stops at the first fault; asking in this order makes the order of keys irrelevant.
    if isinstance(error, UnicodeDecodeError) or _other_encoding(value):
        return "encoding", "not UTF-8 without a byte order mark"
    if isinstance(error, RecursionError):
        return "hostile", "nested too deeply"
    reason = _reason_of_syntax(value)
    if reason is not None:
        return reason
    if isinstance(error, msgspec.ValidationError):
        return _reason_of_violation(str(error))
    return "malformed", str(error)


def _other_encoding(value: bytes) -> bool:
    # A NUL never occurs in JSON text: it is UTF-16 or UTF-32 when it stands beside the first brace.
    if value.startswith(_BYTE_ORDER_MARKS) or b"\0" in value[:4]:
        return True
    try:
        value.decode()
    except UnicodeDecodeError:
        return True
    return False


def _reason_of_syntax(value: bytes) -> tuple[DecodeReason, str] | None:
    """Read all of `value` with the standard library, which accepts NaN and Infinity and says so."""
    try:
        json.loads(value, parse_constant=_refuse, parse_float=_finite, parse_int=len)
    except _NotFiniteError as error:
        return "hostile", f"not a finite number: {error}"
    except RecursionError:
        return "hostile", "nested too deeply"
    except ValueError as error:
        return "malformed", str(error)
    return None


def _reason_of_violation(text: str) -> tuple[DecodeReason, str]:
    if "missing required field" in text:
        return "missing", text
    if "out of range" in text or "of length" in text or ">=" in text or "<=" in text:
        return "range", text
    if text == "Expected `object`, got `null`":
        return "malformed", "null instead of an object"
    return "type", text


def _refuse(constant: str) -> Never:
    raise _NotFiniteError(constant)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise _NotFiniteError(text[:_SHOWN_CHARS])
    return number
