"""How far dead letters are dealt with: each is sent once, whichever reasons were chosen when."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.dead_letters import PREFIX
from stream.replay_position import ReplayPosition
from stream.replay_selection import Selection, Tally, enter, steps_of

REASONS = ("malformed", "misrouted", "type")
SLICE = 4


@dataclass(frozen=True)
class Letter:
    offset: int
    reason: str
    topic: str = "clicks.dlq"
    partition: int = 0
    timestamp: int = 0
    key: bytes | None = b"u"
    value: bytes | None = b"{"

    @property
    def headers(self):
        return [(PREFIX + "reason", self.reason.encode())]


RUN = st.fixed_dictionaries({
    "reasons": st.frozensets(st.sampled_from(REASONS)),
    "limit": st.none() | st.integers(1, 6),
    "killed_in_slice": st.none() | st.integers(0, 5),
})  # fmt: skip
EVERYTHING = {"reasons": frozenset(), "limit": None, "killed_in_slice": None}


class Group:
    """What the brokers keep between two runs."""

    def __init__(self):
        self.offset, self.metadata = 0, ""

    def run(self, log, end, sent, *, reasons, limit, killed_in_slice):
        """Replay as the command does; killed after a slice was sent and before it is committed."""
        position = ReplayPosition.decode(self.offset, self.metadata)
        selection = Selection(reasons=reasons, limit=limit, now_ms=0)
        tally = Tally()
        waiting = [letter for letter in log if letter.offset >= position.base]
        for number, start in enumerate(range(0, len(waiting), SLICE)):
            room = SLICE if limit is None else limit - tally.chosen.total()
            steps = steps_of(waiting[start : start + SLICE], position, selection, room)
            sent.update(step.record.offset for step in steps if step.verdict == "chosen")
            if number == killed_in_slice:
                return
            for step in steps:
                enter(step, position, tally)
            self.offset, self.metadata = position.encode()
            if limit is not None and tally.chosen.total() == limit:
                return
        position.finish(end)
        self.offset, self.metadata = position.encode()


# Offsets have gaps: markers of transactions take some.
LOGS = st.lists(st.tuples(st.sampled_from(REASONS), st.integers(1, 3)), max_size=30)


def log_of(steps):
    offset, log = 0, []
    for reason, step in steps:
        log.append(Letter(offset, reason))
        offset += step
    return log, offset


@given(steps=LOGS, runs=st.lists(RUN, max_size=6))
def test_every_letter_is_sent_once_by_any_runs_that_end(steps, runs):
    log, end = log_of(steps)
    group, sent = Group(), Counter()

    for run in [*runs, EVERYTHING]:
        group.run(log, end, sent, **run | {"killed_in_slice": None})

    assert sent == Counter(letter.offset for letter in log)
    assert (group.offset, group.metadata) == (end, "")


@given(steps=LOGS, runs=st.lists(RUN, max_size=6))
def test_a_killed_run_loses_none_and_repeats_no_more_than_a_slice(steps, runs):
    log, end = log_of(steps)
    group, sent = Group(), Counter()

    for run in [*runs, EVERYTHING]:
        group.run(log, end, sent, **run)

    kills = sum(run["killed_in_slice"] is not None for run in runs)
    assert set(sent) == {letter.offset for letter in log}
    assert sum(number - 1 for number in sent.values()) <= kills * SLICE


@given(steps=LOGS, runs=st.lists(RUN, max_size=6))
def test_a_chosen_reason_is_done_and_the_others_are_not_touched(steps, runs):
    log, end = log_of(steps)
    group, sent = Group(), Counter()

    for run in runs:
        group.run(log, end, sent, **run | {"reasons": frozenset({"type"}), "limit": None})
    group.run(log, end, sent, **EVERYTHING | {"reasons": frozenset({"type"})})

    assert set(sent) == {letter.offset for letter in log if letter.reason == "type"}


@pytest.mark.parametrize("metadata", ["", "x", "[1]", '{"a": "b"}', '{"a": 1.5}'])
def test_metadata_that_is_not_ours_counts_as_none(metadata):
    position = ReplayPosition.decode(7, metadata)

    assert position.encode() == (7, "")


def test_what_the_base_has_passed_is_forgotten():
    position = ReplayPosition(3, {"type": 9, "range": 5})

    position.finish(6)

    assert position.encode() == (6, '{"type":9}')
    assert position.covers(8, "type")
    assert not position.covers(8, "range")
    assert position.covers(5, "anything")
