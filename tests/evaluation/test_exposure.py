import math
from itertools import combinations

import numpy as np
import pytest

from evaluation.exposure import Exposure, distances_within


def shown(num_items, *lists):
    exposure = Exposure(num_items)
    exposure.add(np.array(lists), np.full(len(lists), np.nan))
    return exposure


ALL = np.ones(4, bool)


def test_coverage_is_the_share_of_the_catalogue_that_was_shown():
    exposure = shown(4, [0, 1], [1, 0])

    assert exposure.coverage(ALL) == 0.5
    assert exposure.coverage(np.array([True, True, False, False])) == 1.0


def test_gini_is_zero_when_all_is_shown_alike_and_high_when_one_item_is_everywhere():
    even, uneven = shown(4, [0, 1], [2, 3]), shown(4, [0, -1], [0, -1])

    assert even.gini(ALL) == pytest.approx(0.0)
    assert uneven.gini(ALL) == pytest.approx(0.75)
    assert Exposure(4).gini(ALL) == 0.0


def test_gini_agrees_with_the_mean_difference_of_all_pairs():
    counts = [5, 1, 0, 2]
    exposure = Exposure(4)
    exposure.shown_I[:] = counts

    differences = sum(abs(a - b) for a in counts for b in counts)

    assert exposure.gini(ALL) == pytest.approx(differences / (2 * 4 * sum(counts)))


def test_novelty_is_the_mean_information_of_what_is_shown():
    clicks = np.array([6, 2, 0, 0])
    exposure = shown(4, [0, 1], [0, 2])

    by_hand = -(2 * math.log2(6 / 8) + math.log2(2 / 8) + math.log2(1 / 8)) / 4

    assert exposure.novelty(clicks) == pytest.approx(by_hand)


def test_lists_that_are_not_full_are_counted():
    assert shown(4, [0, 1], [2, -1]).short_lists == 0.5


def test_the_distance_within_a_list_is_the_mean_over_its_pairs():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((30, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    lists = np.array([[3, 1, 4, 5], [9, 2, -1, -1], [7, -1, -1, -1], [-1, -1, -1, -1]])

    distances = distances_within(lists, vectors)

    for row, distance in zip(lists[:2], distances[:2], strict=True):
        pairs = combinations([item for item in row if item >= 0], 2)
        by_hand = np.mean([1 - vectors[a] @ vectors[b] for a, b in pairs])
        assert distance == pytest.approx(by_hand, abs=1e-6)
    assert np.isnan(distances[2:]).all()


def test_lists_without_a_pair_do_not_count_into_the_mean_distance():
    exposure = Exposure(4)

    exposure.add(np.array([[0, 1], [2, -1]]), np.array([0.4, np.nan]))

    assert exposure.intra_list_distance == pytest.approx(0.4)
