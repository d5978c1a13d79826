"""Contracts of the topics: typed records and their JSON; knows nothing of Kafka clients.

UTF-8 JSON objects; unknown fields are ignored; every field added after v1 is optional. Bytes that
are not such a record raise one `DecodeError` whose reason is the label of the dead letter.
"""

import math
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from stream.decoding import DecodeError, classify

MAX_CLICK_BYTES: Final = 16 * 1024
MAX_ANNOUNCEMENT_BYTES: Final = 64 * 1024
MAX_RECOMMENDATION_BYTES: Final = 1024 * 1024
MAX_ID_BYTES: Final = 128
_INT64: Final = 2**63
# Plain integers below this are read as seconds (stream/validation.py); a written date cannot be.
_FIRST_UNMISTAKABLE_MS: Final = 10**11
_NO_IDS: Final = (None, None, None)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Id = Annotated[
    str,
    Meta(
        description="NFC, printable, 1 to 128 bytes of UTF-8.",
        extra_json_schema={"minLength": 1, "maxLength": MAX_ID_BYTES},
    ),
]
Time = Annotated[
    int,
    Meta(
        description="Milliseconds since the epoch.",
        extra_json_schema={"minimum": 0},
    ),
]
Millis = Annotated[int, Meta(ge=0, description="Milliseconds since the epoch.")]
SchemaVersion = Annotated[int, Meta(ge=1, description="Version of this contract.")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Scalar = str | bool | int | float


class ClickEvent(Struct, frozen=True, kw_only=True):
    """What a user did: one record of the clicks topic, keyed by `user_id`."""

    user_id: Id
    item_id: Id
    timestamp: Time
    schema: SchemaVersion = 1
    event_id: Id | None = None
    session_id: Id | None = None
    type: str = "click"
    context: Annotated[dict[str, Scalar], Meta(max_length=16)] = {}
    recommendation_id: Id | None = None
    position: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    consent: bool = True


class DatedClick(ClickEvent, frozen=True, kw_only=True):
    """The other form that a click may have on the wire; `decode_click` never returns it."""

    timestamp: Annotated[  # type: ignore[assignment]  # the point of this class
        datetime, Meta(tz=True, description="RFC 3339 with a zone.")
    ]


class Reason(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Why an item is in the list, for display."""

    code: str
    item_id: Id | None = None


class RecommendedItem(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One place of the list; absent optional fields are left out of the JSON."""

    item_id: Id
    score: float
    sources: list[str]
    reason: Reason | None = None
    propensity: Annotated[float, Meta(gt=0, le=1)] | None = None


class Trigger(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The click that a recommendation answers."""

    item_id: Id
    timestamp: Annotated[int, Meta(description="Milliseconds since the epoch, as judged.")]
    event_id: Id | None = None


class ModelName(Struct, frozen=True, kw_only=True, gc=False):
    """The one published version that produced all of a recommendation."""

    name: Id
    version: str


class Recommendation(Struct, frozen=True, kw_only=True, gc=False):
    """The answer to one click: one record of the recommendations topic, keyed by `user_id`."""

    recommendation_id: Annotated[
        str, Meta(description="<topic>/<partition>/<offset> of the click: a repeat has the same.")
    ]
    user_id: Id
    trigger: Trigger
    model: ModelName
    policy: str
    generated_at: Millis
    items: Annotated[list[RecommendedItem], Meta(description="In rank order.")]
    schema: SchemaVersion = 1
    session_id: Id | None = None
    items_offsets: Annotated[
        list[int], Meta(description="Catalogue position per partition of the items topic.")
    ] = []
    variant: str | None = None
    expires_at: Millis | None = None
    fallback: Annotated[
        str | None, Meta(description="Why it is not the full model: cold, degraded:<step>.")
    ] = None


class Gate(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the trainer's gate said about a version."""

    verdict: str
    reason: str | None = None


class DeltaRef(Struct, frozen=True, kw_only=True):
    """One delta of a bundle, in order."""

    version: str
    uri: str
    manifest_sha256: Sha256


class ModelAnnouncement(Struct, frozen=True, kw_only=True):
    """A published model version: one record of the models topic, keyed by `<name>/<kind>`."""

    name: Id
    version: Annotated[str, Meta(min_length=1, max_length=128)]
    kind: Literal["bundle", "canary", "delta"]
    uri: Annotated[str, Meta(min_length=1, max_length=2048)]
    manifest_sha256: Sha256
    bytes: Annotated[int, Meta(ge=0)]
    created_at: Millis
    encoder_version: str
    trained_through: Annotated[dict[int, int], Meta(description="Next click offset per partition.")]
    metrics: dict[str, float]
    gate: Gate
    schema: SchemaVersion = 1
    share: Annotated[float, Meta(ge=0, le=1)] = 1.0
    restores: str | None = None
    parent: str | None = None
    deltas: list[DeltaRef] = []
    key_id: str | None = None
    signature: str | None = None

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.metrics.values())):
            raise ValueError("metrics must be finite numbers")
        if self.kind == "delta" and self.parent is None:
            raise ValueError("a delta names its parent")


Contract = ClickEvent | Recommendation | ModelAnnouncement
T = TypeVar("T")

_CLICK: Final = msgspec.json.Decoder(ClickEvent)
_DATED_CLICK: Final = msgspec.json.Decoder(DatedClick)
_RECOMMENDATION: Final = msgspec.json.Decoder(Recommendation)
_ANNOUNCEMENT: Final = msgspec.json.Decoder(ModelAnnouncement)
_ENCODER: Final = msgspec.json.Encoder()


def encode(message: Contract) -> bytes:
    """Return the JSON of `message`.

    Its floats must be finite, since msgspec writes NaN as null: the worker checks the scores of a
    whole batch at once, a `ModelAnnouncement` checks its own metrics.
    """
    return _ENCODER.encode(message)


def decode_click(value: bytes | None) -> ClickEvent:
    """Return the click in `value`, its timestamp as an integer, or raise `DecodeError`.

    Hot path: 0.55 µs for a plain click, 1.4 µs with session, event id and context, 3.8 µs when
    the timestamp is written as a date.
    """
    if value is None or len(value) > MAX_CLICK_BYTES:
        _check_size(value, MAX_CLICK_BYTES)
    try:
        click = _CLICK.decode(value)  # type: ignore[arg-type]  # None was refused above
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        click = _decode_dated(value or b"", error)
    user_id, item_id = click.user_id, click.item_id
    # ASCII ids need no normal form; len() counts their bytes.
    if not (user_id.isascii() and user_id.isprintable() and 0 < len(user_id) <= MAX_ID_BYTES):
        _check_id("user_id", user_id, value)
    if not (item_id.isascii() and item_id.isprintable() and 0 < len(item_id) <= MAX_ID_BYTES):
        _check_id("item_id", item_id, value)
    if not -_INT64 <= click.timestamp < _INT64:
        raise DecodeError("range", "timestamp does not fit 64 bits", value)
    if (click.session_id, click.event_id, click.recommendation_id) != _NO_IDS or click.context:
        _check_optional(click, value)
    return click


def decode_recommendation(value: bytes | None) -> Recommendation:
    """Return the recommendation in `value`, or raise `DecodeError`."""
    return _decode(_RECOMMENDATION, value, MAX_RECOMMENDATION_BYTES)


def decode_announcement(value: bytes | None) -> ModelAnnouncement:
    """Return the announcement in `value`, or raise `DecodeError`."""
    announcement = _decode(_ANNOUNCEMENT, value, MAX_ANNOUNCEMENT_BYTES)
    _check_id("name", announcement.name, value)
    return announcement


def _decode(decoder: msgspec.json.Decoder[T], value: bytes | None, limit: int) -> T:
    body = _check_size(value, limit)
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise classify(body, error) from error


def _check_size(value: bytes | None, limit: int) -> bytes:
    if value is None:
        raise DecodeError("malformed", "no value", value)
    if len(value) > limit:
        raise DecodeError("oversize", f"{len(value)} bytes, at most {limit}", value)
    return value


def _decode_dated(value: bytes, error: Exception) -> ClickEvent:
    """Try the RFC 3339 form of the timestamp, or raise what was wrong with `value`."""
    if "`str` - at `$.timestamp`" not in str(error):
        raise classify(value, error) from error
    try:
        dated = _DATED_CLICK.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as second:
        raise classify(value, second) from second
    fields = {name: getattr(dated, name) for name in ClickEvent.__struct_fields__}
    written: datetime = fields["timestamp"]
    milliseconds = (written - _EPOCH) // timedelta(milliseconds=1)
    # Before 1973 any date is as ancient as the epoch, and would be mistaken for seconds.
    fields["timestamp"] = milliseconds if milliseconds >= _FIRST_UNMISTAKABLE_MS else 0
    return ClickEvent(**fields)


def _check_id(field: str, text: str, value: bytes | None) -> None:
    # Compared byte for byte and never case-folded: two ids that look alike must not both pass.
    num_bytes = len(text) if text.isascii() else len(text.encode())
    if not 0 < num_bytes <= MAX_ID_BYTES:
        raise DecodeError("id", f"{field} has {num_bytes} bytes, must have 1 to 128", value)
    if not text.isprintable():
        raise DecodeError("id", f"{field} has characters that do not print", value)
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        raise DecodeError("id", f"{field} is not in normal form C", value)


def _check_optional(click: ClickEvent, value: bytes | None) -> None:
    for field in ("session_id", "event_id", "recommendation_id"):
        text = getattr(click, field)
        if text is not None:
            _check_id(field, text, value)
    for number in click.context.values():
        if isinstance(number, int) and not -_INT64 <= number < _INT64:
            raise DecodeError("range", "a number in context does not fit 64 bits", value)
