"""What users do during a run: clicks at a steady pace, some of them broken; what a reader sees."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import numpy as np
from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from cli.settings import Settings
from stream import clients
from stream.decoding import DecodeError
from stream.headers import provenance

_TICK_SECONDS = 0.02
_MAX_IN_FLIGHT = 20_000
_EVENT_IDS = 64
_PATIENCE_MS = 120_000
_DEAD = (
    b"not json",
    b'{"user_id": "u1"',
    b'{"user_id": "u1", "item_id": "i1", "timestamp": NaN}',
    b'{"user_id": "u1", "item_id": "i1", "timestamp": true}',
    b'{"user_id": "u\\u0000", "item_id": "i1", "timestamp": 1}',
    b"\xff\xfe{",
    b"[" * 20_000,
    b"",
)


class Load:
    """Clicks of random users from a thread until `stop`, equal for equal seeds but for the pace.

    `sent` counts what the brokers acknowledged. What they did not acknowledge may be in the topic
    all the same: only the topic itself says what was to be answered.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        seed: int,
        per_second: float,
        num_users: int,
        num_items: int,
        poison_share: float = 0.02,
    ) -> None:
        self._settings = settings
        self._rng = np.random.default_rng(seed)
        self._per_second = per_second
        self._high = (num_users, num_items)
        self.poison_share = poison_share
        self.sent = 0
        self.failed = 0
        self._handed_over = 0
        self._broken = False
        self._stop = threading.Event()
        self._producer = self._open()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Stop, wait until the fate of every click is known, and return how many are there."""
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join(_PATIENCE_MS / 1000 + 10)
            with suppress(KafkaError):
                self._producer.flush(timeout=_PATIENCE_MS / 1000)
            self._producer.close(timeout=5)
        return self.sent

    def _open(self) -> KafkaProducer:
        patient = self._settings.kafka.model_copy(
            update={
                "delivery_timeout_ms": _PATIENCE_MS,
                "producer": {"max_request_size": 4_000_000},
            }
        )
        return clients.producer(patient, client_id="chaos-load")

    def _run(self) -> None:
        due = 0.0
        last = time.monotonic()
        while not self._stop.wait(_TICK_SECONDS):
            now = time.monotonic()
            due = min(due + (now - last) * self._per_second, self._per_second)
            last = now
            if self._broken:
                self._renew()
            while due >= 1 and self._handed_over - self.sent - self.failed < _MAX_IN_FLIGHT:
                due -= 1
                self._click()

    def _renew(self) -> None:
        # A producer that has failed once is not to be trusted with more.
        self._broken = False
        with suppress(KafkaError):
            self._producer.close(timeout=5)
        while not self._stop.is_set():
            try:
                self._producer = self._open()
            except KafkaError:
                self._stop.wait(1.0)
            else:
                return

    def _click(self) -> None:
        user, item = self._rng.integers(self._high).tolist()
        body: dict[str, Any] = {
            "user_id": f"u{user}",
            "item_id": f"i{item}",
            "timestamp": int(time.time() * 1000),
        }
        kind = self._rng.random()
        if kind < self.poison_share / 4:
            other = f"u{user + 1}"  # another user's key: misrouted
            self._send(json.dumps(body).encode(), other.encode())
        elif kind < self.poison_share:
            self._send(_DEAD[self._rng.integers(len(_DEAD))], f"u{user}".encode())
        else:
            if kind > 1 - self.poison_share:
                body["event_id"] = f"e{self._rng.integers(_EVENT_IDS)}"
            self._send(json.dumps(body).encode(), f"u{user}".encode())

    def _send(self, value: bytes, key: bytes) -> None:
        try:
            future = self._producer.send(self._settings.topics.clicks, value=value, key=key)
        except KafkaError:
            self._broken = True
            return
        self._handed_over += 1
        # Both run on the client's thread, one at a time.
        future.add_callback(self._acknowledged)
        future.add_errback(self._not_acknowledged)

    def _acknowledged(self, metadata: object) -> None:
        self.sent += 1

    def _not_acknowledged(self, error: object) -> None:
        self.failed += 1
        self._broken = True


class Witness:
    """A `read_committed` reader beside the workers: whatever it saw must stand at the end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.seen: dict[int, Counter[int]] = {}
        self.error: Exception | None = None
        self._finish_by: float | None = None
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)
        self._thread.start()

    def finish(self, seconds: float) -> dict[int, Counter[int]]:
        """Read to the end as it is now, stop, and return partition → click offset → copies."""
        self._finish_by = time.monotonic() + seconds
        self._thread.join(seconds + 10)
        if self.error is None and self._thread.is_alive():
            self.error = TimeoutError("the reader did not come to the end")
        return self.seen

    def _run(self) -> None:
        try:
            self._read()
        except (KafkaError, DecodeError, TimeoutError) as error:
            self.error = error

    def _read(self) -> None:
        topic = self._settings.topics.recommendations
        reader = clients.reader(self._settings.kafka, client_id="chaos-witness")
        parts = [TopicPartition(topic, p) for p in range(self._settings.topics.partitions)]
        reader.assign(parts)
        reader.seek_to_beginning(*parts)
        self.seen = {tp.partition: Counter() for tp in parts}
        try:
            while True:
                deadline = self._finish_by
                for tp, records in reader.poll(timeout_ms=200).items():
                    seen = self.seen[tp.partition]
                    seen.update(provenance(record.headers).offset for record in records)
                if deadline is not None:
                    ends = reader.end_offsets(parts, timeout_ms=10_000)
                    reached = {tp: reader.position(tp, timeout_ms=10_000) or 0 for tp in parts}
                    if all(reached[tp] >= ends[tp] for tp in parts):
                        return
                    if time.monotonic() > deadline:
                        raise TimeoutError("the reader did not come to the end")
        finally:
            reader.close()
