"""What a commit protocol is: one batch of records and offsets that takes effect or does not.

The two protocols are in `at_least_once.py` and `exactly_once.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from typing import NamedTuple, Protocol

from kafka import KafkaConsumer, TopicPartition
from kafka.structs import ConsumerGroupMetadata


class Send(NamedTuple):
    """One record to produce."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Outcome(Enum):
    """What became of a batch, and so what the caller does with its state."""

    KEPT = auto()
    ROLLED_BACK = auto()
    UNKNOWN = auto()


class Committer(Protocol):
    """Commit batches; one at a time, from one thread.

    One strike: after any failure the producer is never used again (kafka-python's D1 to D5 lose,
    double or misplace records of a producer that has failed once), and what was committed is asked,
    not guessed. `renewals` counts the producers that took over from another.
    """

    renewals: int

    def commit(
        self,
        sends: Iterable[Send],
        before: dict[TopicPartition, int],
        after: dict[TopicPartition, int],
        member: ConsumerGroupMetadata,
    ) -> Outcome:
        """Produce `sends` and move the committed offsets from `before` to `after`.

        `member` is the group membership under which the batch was polled. Raises what only leaving
        the process can mend: no permission, a record larger than brokers take, fenced, a sender
        thread that does not end; StoppedError when `beat` says so in a wait for brokers.
        """

    def close(self) -> None:
        """End the producer; every batch is already committed."""


def committed_outcome(
    consumer: KafkaConsumer,
    before: dict[TopicPartition, int],
    after: dict[TopicPartition, int],
) -> Outcome:
    """Ask what became of a batch: `committed()` waits while a transaction is pending."""
    committed = {tp: consumer.committed(tp, timeout_ms=10_000) for tp in after}
    if committed == after:
        return Outcome.KEPT
    return Outcome.ROLLED_BACK if committed == before else Outcome.UNKNOWN
