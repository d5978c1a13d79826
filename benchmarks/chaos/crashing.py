"""A worker that crashes, or stalls, at a named point: the command with the client's calls wrapped.

    python -m benchmarks.chaos.crashing mid_send:40 worker --config nextclick.toml

"name:n" ends the process with exit code 137 when it comes to that point the n-th time (mid_send:
after n records), as kill -9 would; "name:n:seconds" holds it up there instead, its other threads
alive. The product has no hooks for this: what it calls is wrapped before it starts.

    after_poll            clicks were polled, nothing is sent
    mid_send              a part of a batch was sent, and is acknowledged
    after_flush           every record of a batch is acknowledged
    after_offsets         exactly once: the transaction has its offsets too, commit not begun;
                          at least once: about to commit
    before_commit_reply   the broker has committed, the answer was not read
    after_commit          committed, and the worker knows
    in_restore            a slice of the changelog was read
    in_swap               about to serve a new version
    in_renew              a flush failed, the producer's successor has just been made
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import kafka
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.errors import KafkaTimeoutError
from kafka.producer import transaction_manager

from stream import record_batches
from worker.answering import Answering

EXIT_CODE = 137
_PARTIAL_FLUSH_SECONDS = 2.0

Method = Callable[..., Any]


def main(arguments: list[str]) -> int:
    """Run the command line after the fail-point (empty: none) and return its exit code."""
    from cli.__main__ import main as run_command

    fail_point, *command = arguments
    if fail_point:
        install(fail_point)
    sys.argv = ["nextclick", *command]
    try:
        run_command()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 0


def install(fail_point: str) -> None:
    """Wrap what leads to the point; raises KeyError for an unknown one."""
    name, count, *seconds = fail_point.split(":")
    stall = float(seconds[0]) if seconds else None
    _POINTS[name](_Point(int(count), name, stall))


class _Point:
    """Ends or holds up the process; `passed` counts down to that."""

    def __init__(self, count: int, name: str, stall_seconds: float | None) -> None:
        self._left = count
        self._name = name
        self._stall_seconds = stall_seconds

    def due(self) -> bool:
        """Count; tell whether this is the n-th time."""
        self._left -= 1
        return self._left == 0

    def strike(self) -> None:
        """Let happen what was asked for."""
        os.write(2, f"fail-point {self._name} reached\n".encode())
        if self._stall_seconds is None:
            os._exit(EXIT_CODE)
        time.sleep(self._stall_seconds)

    def passed(self) -> None:
        """Count, and strike the n-th time."""
        if self.due():
            self.strike()


def _wrap(owner: Any, name: str, wrapper: Callable[[Method], Method]) -> None:
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(wrapper(original)))


def _before(owner: type, name: str, point: _Point) -> None:
    def wrapper(original: Method) -> Method:
        def call(*args: Any, **options: Any) -> Any:
            point.passed()
            return original(*args, **options)

        return call

    _wrap(owner, name, wrapper)


def _after(owner: type, name: str, point: _Point) -> None:
    def wrapper(original: Method) -> Method:
        def call(*args: Any, **options: Any) -> Any:
            result = original(*args, **options)
            point.passed()
            return result

        return call

    _wrap(owner, name, wrapper)


def _after_poll(point: _Point) -> None:
    _after_records(lambda consumer: consumer.config["group_id"] is not None, point)


def _in_restore(point: _Point) -> None:
    _after_records(lambda consumer: consumer.config["client_id"].endswith("-restore"), point)


def _after_records(wanted: Callable[[Any], bool], point: _Point) -> None:
    def wrapper(poll: Method) -> Method:
        def call(self: Any, *args: Any, **options: Any) -> Any:
            records = poll(self, *args, **options)
            if records and wanted(self):
                point.passed()
            return records

        return call

    _wrap(kafka.KafkaConsumer, "poll", wrapper)


def _mid_send(point: _Point) -> None:
    def wrapper(put: Method) -> Method:
        def call(producer: Any, place: Any, batch: Any) -> Any:
            deliveries = put(producer, place, batch)
            if any(point.due() for _ in batch.records):
                with suppress(KafkaTimeoutError):
                    producer.flush(timeout=_PARTIAL_FLUSH_SECONDS)
                point.strike()
            return deliveries

        return call

    _wrap(record_batches, "put", wrapper)


def _after_flush(point: _Point) -> None:
    _after(kafka.KafkaProducer, "flush", point)


def _after_offsets(point: _Point) -> None:
    _before(transaction_manager.TransactionManager, "begin_commit", point)
    _before(kafka.KafkaConsumer, "commit", point)


def _before_commit_reply(point: _Point) -> None:
    # The reply is read on the client's own thread: the loop still waits for it.
    _before(transaction_manager.EndTxnHandler, "handle_response", point)
    _before(ConsumerCoordinator, "_handle_offset_commit_response", point)


def _after_commit(point: _Point) -> None:
    def wrapper(begin_commit: Method) -> Method:
        def call(*args: Any, **options: Any) -> Any:
            result = begin_commit(*args, **options)
            wait = result.wait

            def wait_and_reach(*args: Any, **options: Any) -> Any:
                done = wait(*args, **options)
                if result.succeeded:
                    point.passed()
                return done

            result.wait = wait_and_reach
            return result

        return call

    _wrap(transaction_manager.TransactionManager, "begin_commit", wrapper)
    _after(kafka.KafkaConsumer, "commit", point)


def _in_swap(point: _Point) -> None:
    def wrapper(swap: Method) -> Method:
        def call(self: Any, version: Any) -> None:
            if version is not None:
                point.passed()
            swap(self, version)

        return call

    _wrap(Answering, "swap", wrapper)


def _in_renew(point: _Point) -> None:
    """Have the n-th flush fail; the point is the first producer that is ready after that."""
    failed = False

    def failing(flush: Method) -> Method:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal failed
            flush(*args, **options)
            if point.due():
                failed = True
                raise KafkaTimeoutError("planted on the way to in_renew")

        return call

    def striking(transactional: bool) -> Callable[[Method], Method]:
        def wrapper(make_ready: Method) -> Method:
            def call(self: Any, *args: Any, **options: Any) -> None:
                make_ready(self, *args, **options)
                if failed and transactional == bool(self.config["transactional_id"]):
                    point.strike()

            return call

        return wrapper

    _wrap(kafka.KafkaProducer, "flush", failing)
    _wrap(kafka.KafkaProducer, "__init__", striking(transactional=False))
    _wrap(kafka.KafkaProducer, "init_transactions", striking(transactional=True))


_POINTS: dict[str, Callable[[_Point], None]] = {
    "after_poll": _after_poll,
    "mid_send": _mid_send,
    "after_flush": _after_flush,
    "after_offsets": _after_offsets,
    "before_commit_reply": _before_commit_reply,
    "after_commit": _after_commit,
    "in_restore": _in_restore,
    "in_swap": _in_swap,
    "in_renew": _in_renew,
}
NAMES = tuple(_POINTS)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
