"""From polled records to columns: decode, judge, find each user's slot; knows no model arithmetic.

Every record ends in one of three lists: clicks to answer, dead letters, counted skips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from stream.decoding import DecodeError
from stream.headers import click_body
from stream.kafka_types import ConsumerRecord
from stream.messages import ClickEvent, decode_click
from stream.validation import judge, routed
from worker.ledger import Ledger
from worker.recommender import Clicks
from worker.sessions import Sessions, Undo, hash_of

Array = np.ndarray[Any, np.dtype[Any]]


class Dead(NamedTuple):
    """A record that is no usable click, and why."""

    record: ConsumerRecord
    reason: str
    error: DecodeError | None


class Judged(NamedTuple):
    """A click that is answered: its record, the decoded event, its time in ms."""

    record: ConsumerRecord
    event: ClickEvent
    time_ms: int


@dataclass(slots=True)
class Intake:
    """One batch, sorted by what becomes of each record."""

    judged: list[Judged] = field(default_factory=list)
    dead: list[Dead] = field(default_factory=list)
    skipped: list[tuple[ConsumerRecord, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Seated:
    """The clicks of a batch with their sessions, and how to undo what the batch does to them."""

    clicks: Clicks
    judged: list[Judged]
    undo: Undo
    owners: dict[int, tuple[int, str]]
    evicted: list[tuple[int, str, int]]
    scratch: list[int]


def judge_records(
    records: Iterable[ConsumerRecord],
    ledgers: Mapping[int, Ledger],
    sessions: Sessions,
    *,
    num_partitions: int,
    ttl_ms: int,
) -> Intake:
    """Decode and judge records in log order; total: every record ends in one of the lists.

    Log time is the partition's running maximum of record timestamps, so the verdict is the same at
    every replay.
    """
    intake = Intake()
    for record in records:
        ledger = ledgers[record.partition]
        ledger.log_time = log_time = max(ledger.log_time, record.timestamp)
        try:
            body = click_body(record.value, record.headers) if record.headers else record.value
            event = decode_click(body)
        except DecodeError as error:
            intake.dead.append(Dead(record, error.reason, error))
            continue
        if not _is_routed(record, event.user_id, sessions, num_partitions):
            intake.dead.append(Dead(record, "misrouted", None))
            continue
        verdict = judge(event, log_time, ttl_ms=ttl_ms)
        if isinstance(verdict, str):
            intake.skipped.append((record, verdict))
        else:
            intake.judged.append(Judged(record, event, verdict))
    return intake


def seat(
    intake: Intake,
    sessions: Sessions,
    ledgers: Mapping[int, Ledger],
    code_of: Callable[[str], int],
) -> Seated:
    """Give every judged click its slot; duplicates move to the skipped.

    Users without consent get a scratch slot: answered from this click alone, nothing is kept.
    """
    evicted = _make_room(intake.judged, sessions)
    slots, owners, created, scratch = _find_slots(intake.judged, sessions)
    touched = np.fromiter(owners, np.int64, len(owners))
    undo = sessions.begin(touched, created)
    judged, kept = _without_duplicates(intake, slots, sessions)
    clicks = _columns(judged, [slots[i] for i in kept], sessions, ledgers, code_of)
    return Seated(clicks, judged, undo, owners, evicted, scratch)


def outcomes(
    intake: Intake, seated: Seated, sources: Iterable[str]
) -> list[tuple[ConsumerRecord, str, str]]:
    """Return each record with its outcome and reason, by offset; `sources` are the clicks'."""
    found = [
        (judged.record, "recommended", source)
        for judged, source in zip(seated.judged, sources, strict=False)
    ]
    found += [(dead.record, "dead", dead.reason) for dead in intake.dead]
    found += [(record, "skipped", reason) for record, reason in intake.skipped]
    found.sort(key=lambda outcome: outcome[0].offset)
    return found


def _is_routed(
    record: ConsumerRecord, user_id: str, sessions: Sessions, num_partitions: int
) -> bool:
    # A user with a session here was found to be routed right before; murmur2 in Python is slow.
    if record.key is not None and sessions.find(record.partition, user_id) >= 0:
        return bool(record.key == user_id.encode())
    return routed(user_id, record.key, record.partition, num_partitions)


def _find_slots(
    judged: list[Judged], sessions: Sessions
) -> tuple[list[int], dict[int, tuple[int, str]], list[tuple[int, str]], list[int]]:
    slots, owners, created, scratch = [], {}, [], []
    for record, event, _ in judged:
        if not event.consent:
            slot = sessions.scratch()
            scratch.append(slot)
        else:
            slot = sessions.find(record.partition, event.user_id)
            if slot < 0:
                slot = sessions.create(record.partition, event.user_id)
                created.append((record.partition, event.user_id))
            owners[slot] = (record.partition, event.user_id)
        slots.append(slot)
    return slots, owners, created, scratch


def _without_duplicates(
    intake: Intake, slots: list[int], sessions: Sessions
) -> tuple[list[Judged], list[int]]:
    if all(judged.event.event_id is None for judged in intake.judged):
        return intake.judged, list(range(len(slots)))
    kept = []
    for i, (record, event, _) in enumerate(intake.judged):
        if event.event_id and sessions.duplicate(slots[i], event.event_id, record.offset):
            intake.skipped.append((record, "duplicate"))
        else:
            kept.append(i)
    return [intake.judged[i] for i in kept], kept


def _columns(
    judged: list[Judged],
    slots: list[int],
    sessions: Sessions,
    ledgers: Mapping[int, Ledger],
    code_of: Callable[[str], int],
) -> Clicks:
    num = len(judged)
    slot_B = np.array(slots, np.int64)
    offset_B = np.fromiter((j.record.offset for j in judged), np.int64, num)
    answered_B = np.fromiter(
        (
            j.event.consent and ledgers[j.record.partition].is_repeat(j.record.offset)
            for j in judged
        ),
        bool,
        num,
    )
    # A session says itself how far it has come, and is believed: a crash may have kept the marker
    # and lost the session's record. Only of a user without one the marker has to be asked.
    evicted_B = answered_B & (sessions.n_S[slot_B] == 0)
    return Clicks(
        slot_B=slot_B,
        code_B=np.fromiter((code_of(j.event.item_id) for j in judged), np.int32, num),
        time_B=np.fromiter((j.time_ms for j in judged), np.int64, num),
        offset_B=offset_B,
        session_hash_B=np.fromiter((hash_of(j.event.session_id) for j in judged), np.uint32, num),
        repeat_B=evicted_B | (offset_B <= sessions.offset_S[slot_B]),
        item_ids=[j.event.item_id for j in judged],
    )


def _make_room(judged: list[Judged], sessions: Sessions) -> list[tuple[int, str, int]]:
    """Evict the longest idle users when the batch's new ones would not fit."""
    users = {(j.record.partition, j.event.user_id) for j in judged if j.event.consent}
    new = sum(sessions.find(*user) < 0 for user in users)
    if new <= sessions.num_free:
        return []
    # A hundredth at a time, so that the search for the longest idle is rare.
    count = max(new - sessions.num_free, sessions.max_live // 100)
    first: dict[int, int] = {}
    for record, _, _ in judged:
        first.setdefault(record.partition, record.offset)
    evicted: list[tuple[int, str, int]] = []
    for partition, user_id in sessions.longest_idle(count + len(users)):
        offset = int(sessions.offset_S[sessions.find(partition, user_id)])
        # After a crash a session may be ahead of the batch: its clicks are still to be repeated.
        ahead = offset >= first.get(partition, offset + 1)
        if (partition, user_id) not in users and not ahead and len(evicted) < count:
            evicted.append((partition, user_id, offset))
            sessions.remove(partition, user_id)
    return evicted
