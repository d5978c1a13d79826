"""The commit protocol in which records, offsets and state take effect together: a transaction.

KIP-98 and KIP-447 over a client whose state machine cannot be trusted after an error.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka.errors import (
    FencedInstanceIdError,
    InvalidProducerEpochError,
    InvalidTxnStateError,
    KafkaError,
    KafkaTimeoutError,
    ProducerFencedError,
)
from kafka.structs import ConsumerGroupMetadata

from stream.batch import Send
from stream.committer import Committer
from stream.positions import as_commit
from stream.producers import FINAL_ERRORS, NotDeliveredError, deliver, end, patiently

_STEP_MS = 8_000  # offsets and commit would wait for ever (D9)
_SLOW_SECONDS = 1.0
_FENCED = (
    ProducerFencedError,
    InvalidProducerEpochError,
    InvalidTxnStateError,
    FencedInstanceIdError,
)


class FencedError(Exception):
    """Another process has taken over this slot, or brokers have timed our transaction out.

    Initialising again at once would make two owners fence each other in a loop.
    """


class ExactlyOnce(Committer):
    """1 begin, 2 send, 3 flush, 4 check every future, 5 offsets, 6 commit.

    On any failure, and when a step did not answer in time, 7 a successor with the same
    transactional id takes over, which finishes or aborts what is open, 8 the old sender is ended,
    and 9 the committed offsets say what became of the batch. `abort` is never called. A transaction
    that lost the connection of one of its requests, or was slow, is followed by 7 and 8 as well: a
    late copy of that request would take part in a later transaction (D15, KAFKA-17754).

    `make_producer` returns a transactional producer that is not initialised yet.
    """

    _lost: _LostConnections

    def _attempt(
        self,
        sends: Iterable[Send],
        offsets: dict[TopicPartition, int],
        member: ConsumerGroupMetadata,
    ) -> None:
        started = time.monotonic()
        # The producer's own `send_offsets_to_transaction` and `commit_transaction` have no limit.
        manager = self._producer._transaction_manager  # type: ignore[attr-defined]  # not in the stubs
        self._producer.begin_transaction()
        deliver(self._producer, sends, self._flush_seconds)
        self._await(manager.send_offsets_to_transaction(as_commit(offsets), member))
        self._await(manager.begin_commit())
        if self._lost.count or time.monotonic() - started > _SLOW_SECONDS:
            self._renew()

    def _await(self, result: Any) -> None:
        self._producer._sender.wakeup()  # type: ignore[attr-defined]  # the stubs leave it out
        if not result.wait(_STEP_MS):
            raise KafkaTimeoutError(f"no coordinator answered within {_STEP_MS / 1000:g} s")

    def _open(self) -> KafkaProducer:
        producer = super()._open()
        try:
            # Fences a predecessor, and waits until its last transaction is settled.
            producer.init_transactions()
        except KafkaError as error:
            end(producer)
            _raise_if_final(error, producer)
            raise
        self._lost = _LostConnections(producer)
        return producer

    def _raise_if_final(self, error: KafkaError | NotDeliveredError) -> None:
        _raise_if_final(error, self._producer)

    def _renew(self) -> None:
        old = self._producer
        self._producer = patiently(self._open, self._beat)
        end(old)
        self.renewals += 1


class _LostConnections:
    """Count the transactional requests that may still be under way although they were repeated.

    The client forgets a known coordinator when it has to: the connection was lost, or another
    broker has the role now.
    """

    def __init__(self, producer: KafkaProducer) -> None:
        self.count = 0
        manager = producer._transaction_manager  # type: ignore[attr-defined]  # not in the stubs
        forget = manager._lookup_coordinator

        def counted(kind: Any, key: str) -> None:
            if manager.coordinator(kind) is not None:
                self.count += 1
            forget(kind, key)

        manager._lookup_coordinator = counted


def _raise_if_final(error: BaseException, producer: KafkaProducer) -> None:
    """Raise what a new producer would not mend: fenced, not allowed, too large."""
    manager = producer._transaction_manager  # type: ignore[attr-defined]  # not in the stubs
    for cause in _causes(error, manager.last_error):
        if isinstance(cause, FINAL_ERRORS):
            raise cause
        if isinstance(cause, _FENCED):
            raise FencedError(
                f"{manager.transactional_id}: {type(cause).__name__}. Another process uses this "
                "slot, or the transaction took longer than processing.transaction_timeout_ms; "
                "give each process its own processing.slot"
            ) from error


def _causes(*errors: BaseException | None) -> Iterator[BaseException]:
    """Yield the errors and those that they wrap: as cause, in their arguments, or of a record."""
    for error in errors:
        if error is not None:
            yield error
            inner = (error.__cause__, getattr(error, "cause", None), *error.args)
            yield from _causes(*(e for e in inner if isinstance(e, BaseException)))
