"""Sequential rules equal counts made by hand."""

import numpy as np
import pytest

from index import rules
from index.click_memory import NO_CLICK, ClickMemory
from index.neighbours import new_scores

ITEMS = 6


def memory_of(*sessions, capacity=1_000):
    memory = ClickMemory(capacity=capacity, num_items=ITEMS)
    for items in sessions:
        first = memory.num_added
        before = [NO_CLICK, *range(first, first + len(items) - 1)]
        memory.append(items, np.zeros(len(items)), before)
    return memory


def counts(memory, last, before=-1):
    channels = [new_scores(ITEMS) for _ in range(3)]
    nums = rules.rule_scores(memory.held, last, before, *channels)
    return [
        {int(row): float(scores.score_N[row]) for row in scores.touched_N[:num]}
        for scores, num in zip(channels, nums, strict=True)
    ]


def test_what_came_after_weighs_by_its_distance():
    after, next_, pair = counts(memory_of([0, 1, 2], [0, 2, 3, 4], [5, 0]), 0)

    assert after == pytest.approx({1: 1.0, 2: 1.5, 3: 0.5, 4: 1 / 3})
    assert next_ == {1: 1.0, 2: 1.0}
    assert pair == {}


def test_a_pair_counts_only_where_both_came_in_this_order():
    memory = memory_of([3, 0, 1], [0, 3, 2], [3, 4, 0, 5], [3, 0, 4])

    assert counts(memory, 0, before=3)[2] == {1: 1.0, 4: 1.0}


def test_at_most_ten_clicks_further_are_counted():
    after, _, _ = counts(memory_of([0, *[1] * 10, 2]), 0)

    assert set(after) == {1}


def test_only_the_latest_occurrences_are_read():
    sessions = [[0, 1], *[[0, 2]] * rules.MAX_OCCURRENCES]

    assert counts(memory_of(*sessions, capacity=5_000), 0)[1] == {2: rules.MAX_OCCURRENCES}


def test_what_was_overwritten_counts_no_longer():
    memory = memory_of([0, 1], [0, 2], [0, 3], capacity=4)

    assert counts(memory, 0)[1] == {2: 1.0, 3: 1.0}
