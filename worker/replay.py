"""A single-threaded replay of one partition's clicks: what every session must be.

It is the oracle for the slabs, so it shares none of their code: plain objects, one click at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from index.candidates import RING
from stream.decoding import DecodeError
from stream.headers import click_body
from stream.kafka_types import ConsumerRecord
from stream.messages import ClickEvent, decode_click
from stream.validation import judge, routed
from worker.recommender import digest_of
from worker.sessions import EVENT_RING, hash_of


class Clicked(msgspec.Struct, frozen=True, gc=False):
    """What a session takes from a click; small, because a replay holds one for each."""

    user_id: str
    item_id: str
    session_hash: int
    consent: bool


class Expected(NamedTuple):
    """The outcome that a click must have: recommended, dead or skipped, with the reason."""

    outcome: str
    reason: str
    event: Clicked | None
    time_ms: int


@dataclass(slots=True)
class ReplayedSession:
    """One user's session; `base` and `steps` are what its state is computed from.

    Under `version` the state is the encoding of `base` (the ring when that version first saw the
    session), then one step per item of `steps`.
    """

    n: int = 0
    digest: int = 0
    length: int = 0
    last_offset: int = -1
    time_ms: int = 0
    session_hash: int = 0
    version: str = ""
    ring: deque[str] = field(default_factory=lambda: deque(maxlen=RING))
    base: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    def reencode(self, version: str) -> None:
        """Continue under `version`: another one's state is rebuilt from the ring."""
        if self.version != version:
            self.version, self.base, self.steps = version, list(self.ring), []

    def apply(self, offset: int, click: Clicked, time_ms: int, idle_gap_ms: int) -> None:
        """Apply one click."""
        session_hash = click.session_hash
        other = session_hash not in (0, self.session_hash)
        if time_ms - self.time_ms > idle_gap_ms or other:
            self.ring.clear()
            self.length, self.base, self.steps = 0, [], []
        self.session_hash = session_hash or self.session_hash
        self.ring.append(click.item_id)
        self.steps.append(click.item_id)
        self.length += 1
        self.n += 1
        self.digest = digest_of(self.digest, offset, click.item_id)
        self.last_offset = offset
        self.time_ms = max(self.time_ms, time_ms)


def expected_outcomes(
    records: Iterable[ConsumerRecord], *, num_partitions: int, ttl_ms: int
) -> dict[int, Expected]:
    """Return offset → the outcome that each click of one partition must have."""
    log_time = 0
    events: dict[str, deque[str]] = {}
    names: dict[str, str] = {}
    expected = {}
    for record in records:
        log_time = max(log_time, record.timestamp)
        outcome, reason, click, time_ms = _judge(record, log_time, num_partitions, ttl_ms)
        if outcome == "recommended" and click is not None and click.event_id:
            ring = events.setdefault(click.user_id, deque(maxlen=EVENT_RING))
            if click.event_id in ring and click.consent:
                outcome, reason = "skipped", "duplicate"
            elif click.consent:
                # Without consent nothing is remembered.
                ring.append(click.event_id)
        clicked = _clicked(click, names) if click is not None and outcome != "dead" else None
        expected[record.offset] = Expected(outcome, reason, clicked, time_ms)
    return expected


def _clicked(click: ClickEvent, names: dict[str, str]) -> Clicked:
    # Users and items come again and again: one string each.
    user_id, item_id = (names.setdefault(name, name) for name in (click.user_id, click.item_id))
    return Clicked(user_id, item_id, hash_of(click.session_id), click.consent)


def _judge(
    record: ConsumerRecord, log_time: int, num_partitions: int, ttl_ms: int
) -> tuple[str, str, ClickEvent | None, int]:
    try:
        click = decode_click(click_body(record.value, record.headers))
    except DecodeError as error:
        return "dead", error.reason, None, 0
    if not routed(click.user_id, record.key, record.partition, num_partitions):
        return "dead", "misrouted", None, 0
    verdict = judge(click, log_time, ttl_ms=ttl_ms)
    if isinstance(verdict, str):
        return "skipped", verdict, click, 0
    return "recommended", "", click, verdict
