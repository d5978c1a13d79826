"""What a run is judged by beyond the verifier's checks, on evidence made by hand."""

from collections import Counter

import pytest

from benchmarks.chaos.invariants import applied_twice, differences, exits_as_specified
from benchmarks.chaos.supervisor import Exit
from stream.changelog import SessionRecord
from worker.evidence import Answer, Partition
from worker.replay import Clicked, Expected

CLICK = Clicked(user_id="u", item_id="i", session_hash=0, consent=True)


def partition(*offsets, n=0):
    answers = [Answer(o, generation=1, model="v", n=1, digest=0, replayed=False) for o in offsets]
    session = SessionRecord(1, 9, 1, "v", n, 0, 0, 0, 0, [], b"", b"")
    return Partition(
        number=0,
        committed=10,
        expected={o: Expected("recommended", "", CLICK, 0) for o in range(10)},
        answers=answers,
        misplaced=0,
        dead=[],
        sessions={"u": session},
        evictions={},
        marker=None,
    )


def test_a_reader_that_saw_every_answer_as_often_as_it_stands_differs_in_nothing():
    assert differences(partition(1, 2, 2), Counter({1: 1, 2: 2})) == []


def test_an_answer_that_a_reader_missed_or_alone_saw_is_a_violation():
    (missed,) = differences(partition(1, 2), Counter({1: 1}))
    (alone,) = differences(partition(1), Counter({1: 1, 7: 1}))

    assert "never saw 1 answers, such as of clicks [2]" in missed
    assert "alone saw 1 answers, such as of clicks [7]" in alone


def test_repeated_answers_are_not_clicks_applied_twice():
    assert applied_twice(partition(0, 1, 2, 1, 2, n=3)) == 0


def test_a_session_that_counts_more_clicks_than_were_answered_has_applied_some_twice():
    assert applied_twice(partition(0, 1, 2, n=5)) == 2


class Process:
    def __init__(self, text):
        self.text = text


@pytest.mark.parametrize(
    ("code", "text", "violations"),
    [
        (0, "worker stopped", 0),
        (-9, "", 0),
        (137, "", 0),
        (75, "fenced", 0),
        (70, "a bug", 1),
        (71, "the marker lies below", 1),
        (143, "", 0),  # asked to stop before it served
        (-15, "", 0),
        (143, "waiting for a model", 1),
    ],
)
def test_workers_end_only_as_specified(code, text, violations):
    found = exits_as_specified([Exit("a", code, 1.0, 1.0, Process(text))])

    assert len(found) == violations
