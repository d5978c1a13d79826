"""Drops repeated recommendations in the reader of an at-least-once output; knows no Kafka client.

    from kafka import KafkaConsumer
    from stream.deduplication import Deduplicator

    deduplicator = Deduplicator(load_from_my_database())  # what state() returned, or nothing
    for record in KafkaConsumer("recommendations", group_id="shop"):
        if deduplicator.is_new(record.headers):  # confluent-kafka: message.headers()
            with my_database.transaction():
                use(record.value)
                save_to_my_database(deduplicator.state())

A state that is kept together with the results makes their effect exactly once; one that is kept in
memory only still drops what a worker repeats. Output of `exactly_once` repeats nothing by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from stream.decoding import DecodeError

SOURCE: Final = "src"
_MAX_DIGITS: Final = 19


class Deduplicator:
    """Lets the first copy of each recommendation pass, in memory of one number per partition.

    The recommendations of one partition come in the order of their clicks, and a worker that
    repeats goes back to an earlier click: whatever does not reach further than all before it is a
    repeat. That holds for each partition of the clicks by itself, so a reader of some partitions,
    or of several topics, needs nothing else. Read every partition from one consumer at a time, and
    drop the state when the clicks topic is created anew.
    """

    def __init__(self, state: Mapping[str, int] | None = None) -> None:
        self._highest = dict(state or {})

    def is_new(self, headers: Iterable[tuple[str, bytes | None]] | None) -> bool:
        """Tell whether this is the first copy, and note it as seen.

        `headers` are pairs of name and bytes, as kafka-python and confluent-kafka give them. Raises
        DecodeError when they do not say which click the record answers.
        """
        partition, offset = _source(headers)
        if offset <= self._highest.get(partition, -1):
            return False
        self._highest[partition] = offset
        return True

    def state(self) -> dict[str, int]:
        """Return the highest click offset seen of each `topic/partition`; JSON can hold it."""
        return dict(self._highest)

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from what `state` returned earlier, such as after a rebalance."""
        self._highest = dict(state)


def _source(headers: Iterable[tuple[str, bytes | None]] | None) -> tuple[str, int]:
    """Return the click's `topic/partition` and offset."""
    for name, value in headers or ():
        if name == SOURCE and value is not None:
            partition, _, offset = value.rpartition(b"/")
            if offset.isdigit() and len(offset) <= _MAX_DIGITS and b"/" in partition:
                return partition.decode(errors="backslashreplace"), int(offset)
            raise DecodeError("malformed", f"header {SOURCE}", value)
    raise DecodeError("missing", f"header {SOURCE}")
