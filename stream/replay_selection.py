"""Which dead letters are sent to the clicks again and which never; reads and sends nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from msgspec import Struct

from stream.dead_letters import DeadLetter, Record, parse
from stream.decoding import DecodeError
from stream.headers import click_body
from stream.messages import decode_click
from stream.replay_position import ReplayPosition
from stream.validation import partition_of

MAX_ATTEMPTS: Final = 3
SLICE: Final = 100
# Brokers forget a group's position 7 days after its last run (offsets.retention.minutes): a younger
# letter cannot have been sent by a run that is forgotten.
MAX_AGE_MS: Final = 7 * 86_400_000

Refusal = Literal["at_limit", "cut", "too_old", "not_ours"]


class Selection(Struct, frozen=True, kw_only=True):
    """Which letters: of some reasons (none: of all), at most `limit`; `now_ms` is unix time."""

    reasons: frozenset[str] = frozenset()
    limit: int | None = None
    now_ms: int

    def room(self, num_chosen: int) -> int:
        """Return how many letters of the next slice may be chosen."""
        return SLICE if self.limit is None else self.limit - num_chosen


@dataclass(slots=True)
class Tally:
    """Letters by reason that were chosen or have another reason, and by why they were refused."""

    chosen: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    refused: Counter[Refusal] = field(default_factory=Counter)


class Step(NamedTuple):
    """One letter and what becomes of it; `covered` was dealt with by an earlier run."""

    record: Record
    letter: DeadLetter
    verdict: Literal["chosen", "other", "covered"] | Refusal


def steps_of(
    records: Iterable[Record], position: ReplayPosition, selection: Selection, room: int
) -> list[Step]:
    """Judge letters in order, up to the one that would be the first chosen beyond `room`."""
    steps: list[Step] = []
    for record in records:
        step = _judged(record, position, selection)
        if step.verdict == "chosen":
            if not room:
                break
            room -= 1
        steps.append(step)
    return steps


def _judged(record: Record, position: ReplayPosition, selection: Selection) -> Step:
    letter = parse(record)
    if position.covers(record.offset, letter.reason):
        return Step(record, letter, "covered")
    if selection.reasons and letter.reason not in selection.reasons:
        return Step(record, letter, "other")
    return Step(record, letter, _refusal(record, letter, selection.now_ms) or "chosen")


def _refusal(record: Record, letter: DeadLetter, now_ms: int) -> Refusal | None:
    if not letter.reason or (letter.key is None and letter.value is None):
        return "not_ours"
    if letter.cut:
        return "cut"
    if letter.attempt >= MAX_ATTEMPTS:
        return "at_limit"
    return "too_old" if record.timestamp < now_ms - MAX_AGE_MS else None


def enter(step: Step, position: ReplayPosition, tally: Tally) -> None:
    """Count the letter and move the position past it, unless it is left for another run."""
    if step.verdict == "other":
        tally.others[step.letter.reason] += 1
        position.leave()
        return
    position.settle(step.record.offset, step.letter.reason)
    if step.verdict == "chosen":
        tally.chosen[step.letter.reason] += 1
    elif step.verdict != "covered":
        tally.refused[step.verdict] += 1


def click_partition(step: Step, num_partitions: int) -> int:
    """Return where the clicks of its user lie; without any user where it came from."""
    key = step.letter.key if step.letter.key is not None else _user(step)
    if key is None:
        return max(0, step.letter.partition) % num_partitions
    return partition_of(key, num_partitions)


def _user(step: Step) -> bytes | None:
    try:
        return decode_click(click_body(step.letter.value, step.record.headers)).user_id.encode()
    except DecodeError:
        return None
