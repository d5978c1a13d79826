import math

import numpy as np
import pytest

from evaluation.metrics import (
    MISSED,
    accuracy,
    discounted_gains,
    hits,
    ranks_of,
    reciprocal_ranks,
)


def by_hand(lists, targets, k):
    """The definitions, one prediction at a time: sums over targets that are in their lists."""
    found = reciprocal = gain = 0.0
    for shown, target in zip(lists, targets, strict=True):
        shown = [item for item in shown if item >= 0][:k]
        if target in shown:
            rank = shown.index(target) + 1
            found += 1
            reciprocal += 1 / rank
            gain += 1 / math.log2(rank + 1)
    return found / len(lists), reciprocal / len(lists), gain / len(lists)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_figures_agree_with_their_definitions(k):
    rng = np.random.default_rng(k)
    lists = np.stack([rng.permutation(60)[:k] for _ in range(400)])
    lists[::7, k // 2 :] = -1
    targets = rng.integers(60, size=400)

    got = accuracy(ranks_of(targets, lists))

    assert (got.recall, got.mrr, got.ndcg) == pytest.approx(by_hand(lists, targets, k), abs=1e-12)
    assert got.num == 400


def test_the_best_place_is_one_and_what_is_not_shown_is_missed():
    lists = np.array([[4, 2, 9], [4, 2, 9], [4, 2, 9]])

    ranks = ranks_of(np.array([4, 9, 7]), lists)

    assert ranks.tolist() == [1, 3, MISSED]
    assert hits(ranks).tolist() == [1, 1, 0]
    assert reciprocal_ranks(ranks) == pytest.approx([1, 1 / 3, 0])
    assert discounted_gains(ranks) == pytest.approx([1, 1 / 2, 0])


def test_without_predictions_every_figure_is_zero():
    assert accuracy(np.zeros(0, np.int64)).num == 0
    assert accuracy(np.zeros(0, np.int64)).recall == 0
