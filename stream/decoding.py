"""Why bytes are not a record: the reasons of the input taxonomy; knows no contract."""

import codecs
import json
from typing import Final, Literal, Never

import msgspec

DecodeReason = Literal[
    "malformed", "hostile", "range", "encoding", "type", "missing", "id", "oversize"
]

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
    if isinstance(error, RecursionError):
        return "hostile", "nested too deeply"
    if isinstance(error, UnicodeDecodeError) or _other_encoding(value):
        return "encoding", "not UTF-8 without a byte order mark"
    if isinstance(error, msgspec.ValidationError):
        return _reason_of_violation(str(error))
    return _reason_of_syntax(value, str(error))


def _other_encoding(value: bytes) -> bool:
    # A NUL never occurs in JSON text: it is UTF-16 or UTF-32 when it stands beside the first brace.
    if value.startswith(_BYTE_ORDER_MARKS) or b"\0" in value[:4]:
        return True
    try:
        value.decode()
    except UnicodeDecodeError:
        return True
    return False


def _reason_of_violation(text: str) -> tuple[DecodeReason, str]:
    if "missing required field" in text:
        return "missing", text
    if text.startswith("Number out of range"):  # 1e999, an infinity in disguise
        return "hostile", text
    if "out of range" in text or "of length" in text or ">=" in text or "<=" in text:
        return "range", text
    if text == "Expected `object`, got `null`":
        return "malformed", "null instead of an object"
    return "type", text


def _reason_of_syntax(value: bytes, text: str) -> tuple[DecodeReason, str]:
    """Tell NaN and Infinity, which the standard library reads, from what no reader accepts."""
    try:
        json.loads(value, parse_constant=_refuse_constant)
    except _NotFiniteError:
        return "hostile", "NaN or Infinity"
    except RecursionError:
        return "hostile", "nested too deeply"
    except ValueError:
        pass
    return "malformed", text


def _refuse_constant(name: str) -> Never:
    raise _NotFiniteError(name)
