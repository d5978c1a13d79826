"""Record headers: whence a recommendation came, CloudEvents and trace context; knows no bodies.

CloudEvents 1.0.2, Kafka binding: recommendations go out in binary mode; clicks are taken bare, in
binary mode (where the headers change nothing), and in structured mode.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Struct

from stream.decoding import DecodeError, classify
from stream.messages import MAX_CLICK_BYTES

Headers = Iterable[tuple[str, bytes | None]]

RECOMMENDATION_TYPE: Final = "nextclick.recommendation.v1"
STRUCTURED_MODE: Final = b"application/cloudevents+json"
TRACEPARENT: Final = "traceparent"
_CONTENT_TYPE: Final = "content-type"
_MAX_HEADER_BYTES: Final = 1024


class Provenance(Struct, frozen=True, kw_only=True):
    """What the headers of a recommendation say of its origin."""

    topic: str
    partition: int
    offset: int
    generation: int
    model: str
    n: int
    digest: int
    replayed: bool


class RecommendationHeaders:
    """The headers of one partition's recommendations in one batch.

    What the batch has in common is encoded once; a click then costs 0.9 µs.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        *,
        app: str,
        generation: int,
        model_version: str,
        time_ms: int,
    ) -> None:
        self._source = f"{topic}/{partition}/"
        self._common = [
            ("gen", b"%d" % generation),
            ("model", model_version.encode()),
            ("ce_specversion", b"1.0"),
            ("ce_source", f"/nextclick/{app}".encode()),
            ("ce_type", RECOMMENDATION_TYPE.encode()),
            ("ce_time", _rfc3339(time_ms)),
            (_CONTENT_TYPE, b"application/json"),
        ]

    def recommendation_id(self, offset: int) -> str:
        """Return the id of the recommendation for the click at `offset`: its place in the log."""
        return f"{self._source}{offset}"

    def recommendation_headers(
        self,
        offset: int,
        n: int,
        digest: int,
        *,
        replayed: bool = False,
        traceparent: bytes | None = None,
    ) -> list[tuple[str, bytes]]:
        """Return all headers of one recommendation.

        `n` counts the user's applied clicks, `digest` is their CRC chain.
        """
        source = f"{self._source}{offset}".encode()
        headers = [
            ("src", source),
            ("ce_id", source),
            ("n", b"%d" % n),
            ("digest", b"%08x" % digest),
            *self._common,
        ]
        if replayed:
            headers.append(("replayed", b"1"))
        if traceparent is not None:
            headers.append((TRACEPARENT, traceparent))
        return headers


def parse_headers(headers: Headers) -> dict[str, str]:
    """Return the headers that are text; null, binary and overlong ones are left out."""
    parsed = {}
    for name, value in headers:
        if value is None or len(value) > _MAX_HEADER_BYTES:
            continue
        try:
            parsed[name] = value.decode()
        except UnicodeDecodeError:
            continue
    return parsed


def provenance(headers: Headers) -> Provenance:
    """Return the origin of a recommendation, or raise `DecodeError`."""
    text = parse_headers(headers)
    try:
        topic, partition, offset = text["src"].rsplit("/", 2)
        return Provenance(
            topic=topic,
            partition=int(partition),
            offset=int(offset),
            generation=int(text["gen"]),
            model=text["model"],
            n=int(text["n"]),
            digest=int(text["digest"], 16),
            replayed=text.get("replayed") == "1",
        )
    except KeyError as error:
        raise DecodeError("missing", f"header {error.args[0]}") from error
    except ValueError as error:
        raise DecodeError("malformed", "headers of a recommendation") from error


def traceparent_of(headers: Headers) -> bytes | None:
    """Return the trace context of a click, to be passed on unread."""
    for name, value in headers:
        if name == TRACEPARENT and value is not None and len(value) <= _MAX_HEADER_BYTES:
            return value
    return None


def click_body(value: bytes | None, headers: Headers) -> bytes | None:
    """Return the bytes of the click: `value`, or the `data` of a structured-mode CloudEvent.

    Call it only for records that have headers; raises `DecodeError` for a broken envelope.
    """
    for name, content_type in headers:
        if name == _CONTENT_TYPE and content_type and content_type.startswith(STRUCTURED_MODE):
            return _unwrapped(value)
    return value


class _Envelope(Struct, frozen=True):
    data: msgspec.Raw


_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)


def _unwrapped(value: bytes | None) -> bytes:
    if value is None:
        raise DecodeError("malformed", "no value", value)
    if len(value) > MAX_CLICK_BYTES:
        raise DecodeError("oversize", f"{len(value)} bytes, at most {MAX_CLICK_BYTES}", value)
    try:
        return bytes(_ENVELOPE.decode(value).data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise classify(value, error) from error


def _rfc3339(time_ms: int) -> bytes:
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()
