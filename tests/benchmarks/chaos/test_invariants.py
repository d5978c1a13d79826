"""What each guarantee promises beyond the verifier's checks, on evidence made by hand."""

from collections import Counter

import pytest

from benchmarks.chaos.invariants import deduplicated, disagreement, exits_as_specified, falls
from benchmarks.chaos.supervisor import Exit
from stream.changelog import Marker
from stream.headers import Provenance
from worker.evidence import Partition
from worker.replay import Expected


def answer(offset, generation=1):
    return Provenance(
        topic="clicks", partition=0, offset=offset, generation=generation,
        model="v", n=1, digest=0, replayed=False,
    )  # fmt: skip


def partition(*answers, committed=10, next_offset=None):
    marker = None
    if next_offset is not None:
        marker = Marker(next_offset=next_offset, generation=1, version="v", log_time=0)
    return Partition(
        number=0,
        committed=committed,
        expected={n: Expected("recommended", "", None, 0) for n in range(committed)},
        answers=list(answers),
        dead=[],
        sessions={},
        evictions={},
        marker=marker,
    )


def test_repeats_of_a_batch_leave_one_answer_of_each_click():
    offsets = [0, 1, 2, 3, 2, 3, 4]

    assert deduplicated(partition(*map(answer, offsets), committed=5)) == []


def test_an_answer_that_comes_only_after_a_later_click_is_lost_to_the_readers_rule():
    found = deduplicated(partition(*map(answer, [0, 2, 1]), committed=3))

    assert len(found) == 1
    assert "clicks/0/1" in found[0]


def test_a_generation_that_falls_is_a_zombies():
    rising = partition(answer(0, 1), answer(1, 2), answer(2, 2))
    falling = partition(answer(0, 2), answer(1, 1), answer(2, 2))

    assert falls(rising) == []
    assert len(falls(falling)) == 1


@pytest.mark.parametrize(
    ("committed", "next_offset", "violations"),
    [(10, 10, 0), (10, 11, 1), (10, 9, 1), (10, None, 1), (0, None, 0)],
)
def test_the_marker_must_be_at_the_committed_offset(committed, next_offset, violations):
    found = disagreement(partition(committed=committed, next_offset=next_offset))

    assert len(found) == violations


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
        (143, "waiting for a model", 1),
    ],
)
def test_workers_end_only_as_specified(code, text, violations):
    found = exits_as_specified([Exit("a", code, 1.0, 1.0, Process(text))])

    assert len(found) == violations
    assert Counter(text in words for words in found)[False] == 0
