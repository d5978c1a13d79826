"""Kafka messages as bytes: what they are and precise changes to them; it does not know sockets.

Messages are decoded and encoded with kafka-python's own protocol classes, so a change reaches the
client exactly as a broker would have sent it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any, NamedTuple

from kafka.protocol.api_header import RequestHeader, ResponseClassRegistry
from kafka.protocol.api_key import ApiKey

WITH_ADDRESSES = frozenset({"Metadata", "FindCoordinator", "DescribeCluster"})
_ERROR_FIELDS = ("error_code", "partition_error_code")
_BATCH_HEADER_BYTES = 61  # up to there; a batch's checksum covers all of its records


class Request(NamedTuple):
    """A request's header; its reply carries only the correlation id."""

    api: str
    version: int
    correlation_id: int
    client_id: str


def request_of(payload: bytes) -> Request:
    """Read the header of a request."""
    key, version, correlation_id, length = struct.unpack_from(">hhih", payload)
    client_id = payload[10 : 10 + max(0, length)].decode()
    return Request(ApiKey(key).name, version, correlation_id, client_id)


def correlation_id(reply: bytes) -> int:
    """Return which request a reply answers."""
    return int.from_bytes(reply[:4], "big", signed=True)


def decode_reply(request: Request, reply: bytes) -> Any:
    """Return the reply as kafka-python's message object."""
    key = ApiKey[request.api]
    header = RequestHeader(request_api_key=key, request_api_version=request.version)
    kind = ResponseClassRegistry.get_response_class(header)  # type: ignore[no-untyped-call]
    return kind.decode(reply, version=request.version, header=True)


def with_addresses(request: Request, reply: bytes, ports: Mapping[int, int]) -> bytes:
    """Return the reply with the ports of brokers replaced by those given for them."""
    message = decode_reply(request, reply)
    for part in _parts(message, request.version):
        if "port" in part.fields and part.port in ports:
            part.port = ports[part.port]
    return bytes(message.encode(header=True))


def with_error(request: Request, reply: bytes, code: int, topic: str = "") -> bytes:
    """Return the reply with an error code for every partition, or only for those of `topic`.

    A reply without partitions gets the code as a whole.
    """
    message = decode_reply(request, reply)
    for part, field in _error_fields(message, request.version, topic):
        setattr(part, field, code)
    return bytes(message.encode(header=True))


def error_codes(request: Request, reply: bytes) -> list[int]:
    """Return the error code of every partition of a reply, or of the whole without any."""
    message = decode_reply(request, reply)
    return [getattr(part, field) for part, field in _error_fields(message, request.version, "")]


def has_records(request: Request, reply: bytes) -> bool:
    """Tell whether a Fetch reply brings any records."""
    return bool(_with_records(decode_reply(request, reply)))


def with_flipped_byte(request: Request, reply: bytes, rng: Random) -> bytes:
    """Return the Fetch reply with one bit of the first record batch of a partition changed."""
    message = decode_reply(request, reply)
    partition = rng.choice(_with_records(message))
    records = bytearray(partition.records)
    (length,) = struct.unpack_from(">i", records, 8)
    position = rng.randrange(_BATCH_HEADER_BYTES, min(len(records), 12 + length))
    records[position] ^= 1 << rng.randrange(8)
    partition.records = bytes(records)
    return bytes(message.encode(header=True))


def _with_records(message: Any) -> list[Any]:
    return [
        partition
        for topic in message.responses
        for partition in topic.partitions
        if partition.records and len(partition.records) > _BATCH_HEADER_BYTES
    ]


def _parts(message: Any, version: int) -> Iterator[Any]:
    """Yield the message and every structure inside it."""
    yield message
    for child in _children(message, version):
        yield from _parts(child, version)


def _children(message: Any, version: int) -> Iterator[Any]:
    for name, field in message.fields.items():
        if not field.for_version_q(version):
            continue
        value = getattr(message, name)
        if field.is_struct_array():
            yield from value or ()
        elif field.is_struct() and value is not None:
            yield value


def _error_fields(
    message: Any, version: int, topic: str, inside: str = ""
) -> list[tuple[Any, str]]:
    """Return where the innermost error codes stand: those of partitions when there are any."""
    if "name" in message.fields:
        inside = message.name
    inner = [
        found
        for child in _children(message, version)
        for found in _error_fields(child, version, topic, inside)
    ]
    if inner or (topic and inside != topic):
        return inner
    return [
        (message, name)
        for name in _ERROR_FIELDS
        if name in message.fields and message.fields[name].for_version_q(version)
    ]
