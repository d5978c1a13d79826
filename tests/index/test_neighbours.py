"""Session neighbours equal a plain computation of the same definition."""

from collections import defaultdict

import numpy as np
import pytest

from index import neighbours
from index.click_memory import NO_CLICK, ClickMemory
from index.neighbours import clear, neighbour_scores, new_scores, new_scratch

ITEMS = 15


def make_memory(num_sessions, *, seed=0):
    rng = np.random.default_rng(seed)
    sessions = [rng.integers(ITEMS, size=rng.integers(1, 7)).tolist() for _ in range(num_sessions)]
    memory = ClickMemory(capacity=4_096, num_items=ITEMS)
    for items in sessions:
        first = memory.num_added
        before = [NO_CLICK, *range(first, first + len(items) - 1)]
        memory.append(items, np.zeros(len(items)), before)
    return memory, sessions


def scores_of(memory, session, scratch=None):
    scratch = scratch or new_scratch(memory.capacity)
    scores = new_scores(ITEMS)
    num = neighbour_scores(memory.held, np.array(session, np.int32), scratch, scores)
    found = {int(row): float(scores.score_N[row]) for row in scores.touched_N[:num]}
    clear(scores, num)
    assert not scores.score_N.any()
    return found


def by_definition(memory, sessions, session):
    """The score of every item, written as the formulas read."""
    clicks, found = memory.num_added, defaultdict(float)
    stops = np.cumsum([len(items) for items in sessions])
    for stop, items in zip(stops, sessions, strict=True):
        first = stop - len(items)
        shared = [h for h, row in enumerate(session[: neighbours.MAX_ITEMS]) if row in items]
        if not shared:
            continue
        similarity = sum(np.exp(-0.3 * h) for h in shared)
        similarity *= np.exp(-2.5 * (clicks - first) / clicks) / np.sqrt(len(items))
        weight = similarity * np.exp(-0.3 * shared[0])
        at = len(items) - 1 - items[::-1].index(session[shared[0]])
        for row in dict.fromkeys(items):
            rarity = np.log(1 + clicks / (1 + memory.facts.long_N[row]))
            away = abs(items.index(row) - at)
            found[row] += weight * (1 + rarity) * np.exp(-0.3 * away)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_the_definition(seed):
    memory, sessions = make_memory(60, seed=seed)

    for session in ([3], [1, 7, 4], [0, 2, 4, 6, 8, 1]):
        expected = by_definition(memory, sessions, session)
        assert scores_of(memory, session) == pytest.approx(expected, rel=1e-4)


def test_an_item_without_a_past_has_no_neighbours():
    memory, _ = make_memory(0)

    assert scores_of(memory, [3]) == {}


def test_one_work_space_serves_one_session_after_the_other():
    memory, _ = make_memory(50)
    scratch = new_scratch(memory.capacity)

    for session in ([1, 2], [5], [1, 2]):
        assert scores_of(memory, session, scratch) == scores_of(memory, session)


def test_only_the_nearest_sessions_and_the_newest_clicks_are_looked_at():
    memory = ClickMemory(capacity=8_192, num_items=4)
    many = neighbours.MAX_OCCURRENCES
    for other, count in ((2, 10), (1, many)):
        for _ in range(count):
            first = memory.num_added
            memory.append([0, other], [0, 0], [NO_CLICK, first])

    found = scores_of(memory, [0])

    assert 2 not in found
    assert 1 in found


def test_a_long_session_is_walked_near_the_shared_item_only_and_scores_each_item_once():
    memory = ClickMemory(capacity=8_192, num_items=ITEMS)
    for _ in range(3):
        first = memory.num_added
        items = [1, *[2] * 999, 3, *[4] * 999, 5]
        memory.append(items, np.zeros(len(items)), [NO_CLICK, *range(first, first + 2_000)])

    found = scores_of(memory, [3])

    assert found.keys() == {3, 4}, "the first 2, which would count, is too far away"
    assert 0 < found[4] < found[3]
