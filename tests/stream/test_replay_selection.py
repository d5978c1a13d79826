"""Which dead letters are sent again, which are refused and why, and to which partition."""

from dataclasses import dataclass, field, replace

import pytest

from stream.dead_letters import PREFIX, dead_letter
from stream.replay_position import ReplayPosition
from stream.replay_selection import (
    MAX_AGE_MS,
    Selection,
    Tally,
    click_partition,
    enter,
    steps_of,
)
from stream.validation import partition_of

NOW_MS = 1_795_000_000_000
CLICK = b'{"user_id": "alice", "item_id": "i", "timestamp": 1795000000000}'


@dataclass(frozen=True)
class Record:
    offset: int = 0
    topic: str = "clicks"
    partition: int = 3
    timestamp: int = NOW_MS
    key: bytes | None = b"alice"
    value: bytes | None = b"{"
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)


def buried(record, reason="malformed", **changes):
    """The record of the dead letter of `record`."""
    letter = dead_letter(record, reason, app="a", version="1")
    dead = Record(topic="clicks.dlq", key=letter.key, value=letter.value, headers=letter.headers)
    return replace(dead, **changes)


def step_of(record, **selection):
    selection = Selection(**{"now_ms": NOW_MS} | selection)
    (step,) = steps_of([record], ReplayPosition(), selection, 1)
    return step


def attempted(times):
    return Record(headers=[(PREFIX + "attempt", b"%d" % times)])


@pytest.mark.parametrize(
    ("record", "verdict"),
    [
        (buried(Record()), "chosen"),
        (buried(attempted(2)), "chosen"),
        (buried(attempted(3)), "at_limit"),
        (buried(Record(value=b"x" * 20_000), "oversize"), "cut"),
        (buried(Record(key=b"k" * 20_000)), "cut"),
        (buried(Record(key=None, value=None)), "chosen"),
        (buried(Record(), timestamp=NOW_MS - MAX_AGE_MS), "chosen"),
        (buried(Record(), timestamp=NOW_MS - MAX_AGE_MS - 1), "too_old"),
        (Record(), "not_ours"),
        (Record(key=None, value=None, headers=[(PREFIX + "reason", b"x")]), "not_ours"),
    ],
)
def test_each_letter_has_its_verdict(record, verdict):
    assert step_of(record).verdict == verdict


def test_only_chosen_reasons_are_sent_and_refused():
    assert step_of(buried(attempted(3), "type"), reasons={"range"}).verdict == "other"
    assert step_of(buried(attempted(3), "type"), reasons={"type"}).verdict == "at_limit"
    assert step_of(buried(Record(), "type"), reasons={"type", "range"}).verdict == "chosen"


def test_a_limit_ends_before_the_first_letter_beyond_it():
    letters = [buried(Record(), offset=0), buried(attempted(3), offset=1),
               buried(Record(), offset=2), buried(Record(), offset=3)]  # fmt: skip
    position, tally = ReplayPosition(), Tally()

    for step in steps_of(letters, position, Selection(now_ms=NOW_MS, limit=2), 2):
        enter(step, position, tally)

    assert (tally.chosen.total(), tally.refused) == (2, {"at_limit": 1})
    assert position.base == 3


@pytest.mark.parametrize(
    ("record", "partition"),
    [
        (Record(), partition_of(b"alice", 4)),
        (Record(key=b"bob", value=CLICK), partition_of(b"bob", 4)),
        (Record(key=None, value=CLICK), partition_of(b"alice", 4)),
        (Record(key=None), 3),  # nobody knows the user: where it came from
        (Record(key=None, partition=7), 3),
    ],
)
def test_a_click_goes_where_the_clicks_of_its_user_lie(record, partition):
    assert click_partition(step_of(buried(record)), 4) == partition


def test_a_click_in_an_envelope_is_opened_for_its_user():
    envelope = b'{"specversion": "1.0", "data": ' + CLICK + b"}"
    mode = [("content-type", b"application/cloudevents+json")]

    step = step_of(buried(Record(key=None, value=envelope, headers=mode), "misrouted"))

    assert click_partition(step, 4) == partition_of(b"alice", 4)
