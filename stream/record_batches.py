"""Whole record batches for the client's producer: the records of a worker's batch in one go.

`KafkaProducer.send` looks at each record four times and makes a future for it
(docs/decisions/0013-record-batches.md). Here records are encoded once (message format 2, KIP-98)
and whole batches are put where `send` would have put them: sending, retries, splitting, sequence
numbers and transactions are the client's as before.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

from kafka import KafkaProducer, TopicPartition
from kafka.errors import IllegalStateError, MessageSizeTooLargeError
from kafka.producer.producer_batch import ProducerBatch
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.record.util import encode_varint

from stream.batch import Send

_MAGIC: Final = 2
_HEAD: Final = b"\0\0"  # attributes, and milliseconds after the batch's time
_OVERHEAD: Final = DefaultRecordBatchBuilder.HEADER_STRUCT.size + 21  # of a batch of one record


class Delivery:
    """What becomes of one record: it points to the future of its batch, which may be split."""

    __slots__ = ("future",)

    def __init__(self, future: Any) -> None:
        self.future = future

    def rebind(self, future: Any, _place: int) -> None:
        """Follow the record into a part of its batch; the client calls it in its sender."""
        before, self.future = self.future, future
        before._latch.set()  # wakes who waits for a batch that will never be done


def failures(deliveries: Iterable[Delivery]) -> list[BaseException | None]:
    """Return what kept batches from being acknowledged, None for one that is still under way."""
    futures = dict.fromkeys(delivery.future for delivery in deliveries)
    return [_error(future) for future in futures if not _succeeded(future)]


def append(producer: KafkaProducer, sends: Iterable[Send]) -> list[Delivery]:
    """Put records into the producer's buffer, in order within their partition.

    Unlike `send` it wakes no sender; `flush` does. Raises MessageSizeTooLargeError for a record
    above `max_request_size`, and what `send` raises when the producer cannot be used any more.
    """
    batches: dict[tuple[str, int], Batch] = {}
    limit = producer.config["batch_size"]
    deliveries: list[Delivery] = []
    for record in sends:
        batch = batches.get(record[:2])
        if batch is None:
            batch = batches[record[:2]] = Batch()
        encoded = batch.encoded(record)
        if batch.size + len(encoded) > limit and batch.records:
            deliveries += put(producer, record[:2], batch)
            batch = batches[record[:2]] = Batch()
            encoded = batch.encoded(record)
        if len(encoded) + _OVERHEAD > producer.config["max_request_size"]:
            raise MessageSizeTooLargeError(
                f"a record for {record.topic}/{record.partition} has {len(encoded)} bytes, more "
                f"than max_request_size, {producer.config['max_request_size']}"
            )
        batch.add(encoded)
    for place, batch in batches.items():
        deliveries += put(producer, place, batch)
    return deliveries


def _succeeded(future: Any) -> bool:
    return bool(future.succeeded()) and future.value[2] is None


def _error(future: Any) -> BaseException | None:
    if future.exception is not None or not future.is_done:
        return future.exception  # type: ignore[no-any-return]
    error: BaseException = future.value[2](0)  # as `ProducerBatch.done` leaves it
    return error


class Batch:
    """Encoded records of one partition."""

    __slots__ = ("records", "size")

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.size = DefaultRecordBatchBuilder.HEADER_STRUCT.size

    def encoded(self, record: Send) -> bytes:
        """Return the bytes of a record that is the next of this batch."""
        body = b"".join(
            (
                _HEAD,
                _varint(len(self.records)),
                _with_length(record.key),
                _with_length(record.value),
                _varint(len(record.headers)),
                *[_header_name(name) + _with_length(value) for name, value in record.headers],
            )
        )
        return _varint(len(body)) + body

    def add(self, encoded: bytes) -> None:
        """Make it the next record."""
        self.records.append(encoded)
        self.size += len(encoded)


def put(producer: Any, place: tuple[str, int], batch: Batch) -> list[Delivery]:
    """Hand over the batch of a (topic, partition), as `send` and `RecordAccumulator.append` do."""
    if producer._closed:
        raise IllegalStateError("KafkaProducer already closed!")
    tp, accumulator = TopicPartition(*place), producer._accumulator
    manager = producer._transaction_manager
    if manager is not None and manager.is_transactional():
        manager.maybe_add_partition_to_transaction(tp)
    made: Any = ProducerBatch(tp, _builder_of(accumulator.config, batch), now=time.monotonic())
    deliveries = [Delivery(made.produce_future) for _ in batch.records]
    made._record_futures = deliveries
    accumulator._appends_in_progress.increment()
    try:
        with accumulator._tp_lock(tp):
            if accumulator._closed:
                raise IllegalStateError("RecordAccumulator is closed")
            accumulator._batches[tp].append(made)
            accumulator._incomplete.add(made)
    finally:
        accumulator._appends_in_progress.decrement()
    return deliveries


def _builder_of(config: dict[str, Any], batch: Batch) -> Any:
    """Return the client's builder with these records in it."""
    made: Any = MemoryRecordsBuilder(_MAGIC, config["compression_attrs"], config["batch_size"])
    builder, number = made._builder, len(batch.records)
    builder._buffer += b"".join(batch.records)
    builder._first_timestamp = builder._max_timestamp = time.time_ns() // 1_000_000
    builder._num_records, builder._last_offset = number, number - 1
    made._next_offset = number
    return made


def _encoded(value: int) -> bytes:
    made = bytearray()
    encode_varint(value, made.append)  # type: ignore[no-untyped-call]  # not in the stubs
    return bytes(made)


_VARINTS: Final = [_encoded(value) for value in range(1 << 12)]
_NULL: Final = _encoded(-1)
_NAMES: dict[str, bytes] = {}
_MOST_NAMES: Final = 1_000


def _varint(value: int) -> bytes:
    return _VARINTS[value] if value < len(_VARINTS) else _encoded(value)


def _with_length(data: bytes | None) -> bytes:
    return _NULL if data is None else _varint(len(data)) + data


def _header_name(name: str) -> bytes:
    known = _NAMES.get(name)
    if known is None:
        known = _with_length(name.encode())
        if len(_NAMES) < _MOST_NAMES:
            _NAMES[name] = known
    return known
