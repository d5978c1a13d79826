"""Lists: what is left out, what fills up, always k items where k exist."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index import features as bits
from index.features import NEAR, SESSION
from worker.fusion import Ordered
from worker.ranking import Spread, rank
from worker.sessions import EMPTY

POPULAR = (np.arange(20, 40), np.linspace(0.9, 0.1, 20, dtype=np.float32))


def ranked(candidates, excluded, k):
    codes_BC = np.array([candidates], np.int64)
    scores_BC = np.linspace(1, 0, codes_BC.shape[1], dtype=np.float32)[None]
    found = Ordered(codes_BC, scores_BC, np.full(codes_BC.shape, NEAR))
    return rank(found, np.array([excluded], np.int32).reshape(1, -1), POPULAR, k)


def test_the_best_candidates_stay_in_their_order():
    lists = ranked([5, 3, 9, 1], [], 3)

    assert lists.codes_BK.tolist() == [[5, 3, 9]]
    assert lists.scores_BK[0].tolist() == pytest.approx([1.0, 2 / 3, 1 / 3])
    assert lists.popular_from_B.tolist() == [3]


def test_popular_items_fill_what_is_missing_and_none_comes_twice():
    lists = ranked([21, 3, EMPTY, EMPTY], [20], 4)

    assert lists.codes_BK.tolist() == [[21, 3, 22, 23]]
    assert lists.popular_from_B.tolist() == [2]


def test_a_list_ends_empty_where_no_item_is_left():
    found = Ordered(np.array([[1]]), np.ones((1, 1), np.float32), np.array([[NEAR | SESSION]]))
    popular = (np.array([1, 2]), np.array([0.5, 0.4], np.float32))

    lists = rank(found, np.empty((1, 0), np.int32), popular, 4)

    assert lists.codes_BK.tolist() == [[1, 2, EMPTY, EMPTY]]
    assert lists.scores_BK[0].tolist() == pytest.approx([1.0, 0.4, 0.0, 0.0])
    assert lists.sources_BK[0].tolist() == [NEAR | SESSION, bits.POPULAR, 0, 0]


@given(
    candidates=st.lists(st.integers(-6, 40).filter(lambda c: c != EMPTY), max_size=12, unique=True),
    padding=st.integers(0, 5),
    excluded=st.lists(st.integers(-6, 40), max_size=6),
    k=st.integers(1, 12),
)
def test_a_list_has_k_different_items_that_are_allowed(candidates, padding, excluded, k):
    lists = ranked([*candidates, *[EMPTY] * padding] or [EMPTY], excluded, k)

    codes = lists.codes_BK[0].tolist()
    wanted = [code for code in candidates if code not in excluded][:k]
    assert codes[: len(wanted)] == wanted
    assert lists.popular_from_B[0] == len(wanted)
    fill = [r for r in POPULAR[0].tolist() if r not in wanted and r not in excluded]
    assert codes[len(wanted) :] == fill[: k - len(wanted)]


def test_like_items_give_way_unless_what_they_are_like_is_excluded():
    vectors = np.eye(40, dtype=np.float32)
    vectors[6] = vectors[5]  # 6 is a copy of 5
    codes_BC = np.array([[5, 6, 7, EMPTY]])
    scores_BC = np.array([[3.0, 2.9, 2.8, -np.inf]], np.float32)
    found = Ordered(codes_BC, scores_BC, np.full(codes_BC.shape, NEAR))
    spread = Spread(vectors, 0.9, 1.0)

    free = rank(found, np.empty((1, 0), np.int32), POPULAR, 2, spread)
    without = rank(found, np.array([[5]], np.int32), POPULAR, 2, spread)
    longer = rank(found, np.empty((1, 0), np.int32), POPULAR, 4, spread)

    assert free.codes_BK.tolist() == [[5, 7]]
    assert free.scores_BK[0].tolist() == pytest.approx([3.0, 2.8])
    assert without.codes_BK.tolist() == [[6, 7]]
    assert longer.codes_BK.tolist() == [[5, 6, 7, 20]]
    assert longer.popular_from_B.tolist() == [3]


def test_a_diverse_list_is_chosen_among_more_than_it_shows():
    vectors = np.eye(40, dtype=np.float32)
    vectors[1:30] = vectors[0]
    codes_BC = np.arange(40)[None]
    scores_BC = np.linspace(1, 0.9, 40, dtype=np.float32)[None]
    found = Ordered(codes_BC, scores_BC, np.full(codes_BC.shape, NEAR))

    lists = rank(found, np.empty((1, 0), np.int32), POPULAR, 5, Spread(vectors, 0.5, 1.0))

    assert lists.codes_BK.tolist() == [[0, 30, 31, 32, 33]]


def spread_out(candidates, vectors, excluded=(), k=3, weight=0.9):
    codes_BC = np.array([candidates], np.int64)
    scores_BC = np.where(codes_BC == EMPTY, -np.inf, np.linspace(3, 2, codes_BC.shape[1]))
    found = Ordered(codes_BC, scores_BC.astype(np.float32), np.full(codes_BC.shape, NEAR))
    excluded_BX = np.array([excluded], np.int32).reshape(1, -1)
    return rank(found, excluded_BX, POPULAR, k, Spread(vectors, weight, 8.0))


def test_a_popular_item_that_is_like_nothing_may_take_the_last_place():
    vectors = np.zeros((40, 40), np.float32)
    vectors[:, 0] = 1.0  # all alike but one
    vectors[23] = np.eye(40, dtype=np.float32)[1]

    lists = spread_out([5, 6, 7, 8], vectors)

    assert lists.codes_BK.tolist() == [[5, 6, 23]]
    assert lists.scores_BK[0].tolist() == pytest.approx([3, 8 / 3, 2])
    assert lists.sources_BK.tolist() == [[NEAR, NEAR, bits.POPULAR]]
    assert lists.popular_from_B.tolist() == [3]
    assert spread_out([5, 6, 7, 8], vectors, excluded=[23]).codes_BK.tolist() == [[5, 6, 7]]
    assert spread_out([5, 23, 7, 8], vectors).codes_BK.tolist() == [[5, 23, 7]]


@pytest.mark.parametrize("candidates", [[5, 6, EMPTY, EMPTY], [EMPTY] * 4])
def test_a_list_of_few_candidates_is_filled_up_as_ever(candidates):
    vectors = np.eye(40, dtype=np.float32)

    lists = spread_out(candidates, vectors)

    count = 4 - candidates.count(EMPTY)
    assert lists.codes_BK.tolist() == [[*candidates[:count], *range(20, 23 - count)]]
    assert lists.popular_from_B.tolist() == [count]
