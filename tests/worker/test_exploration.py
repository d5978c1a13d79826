"""Exploration: a seldom shown item at the end of some lists, the same ones whenever asked."""

import numpy as np
import pytest

from index.features import EXPLORED, NEAR
from worker.exploration import chosen, explore
from worker.fusion import Ordered
from worker.ranking import rank
from worker.sessions import EMPTY
from worker.shown import Shown

POPULAR = (np.arange(90, 99), np.linspace(0.9, 0.1, 9, dtype=np.float32))


def explored(candidates, seldom=None, *, excluded=(), k=3, chosen_lists=(True,)):
    """Return the lists of as many equal sessions as there are `chosen_lists`."""
    codes_BT = np.array([candidates] * len(chosen_lists), np.int64)
    scores_BT = np.broadcast_to(np.linspace(1, 0, len(candidates)), codes_BT.shape)
    found = Ordered(codes_BT, scores_BT.astype(np.float32), np.full(codes_BT.shape, NEAR, np.int32))
    excluded_BX = np.array([list(excluded)] * len(codes_BT), np.int32).reshape(len(codes_BT), -1)
    lists = rank(found, excluded_BX, POPULAR, k)
    shown = Shown(100)
    for code in range(100):
        shown.add(np.full((seldom or {}).get(code, 50), code))
    explore(lists, found, excluded_BX, np.array(chosen_lists), shown)
    return lists


def test_the_last_place_of_a_chosen_list_goes_to_its_least_shown_candidate():
    lists = explored([5, 3, 9, 1, 7, 2], {1: 4, 7: 2, 2: 3}, chosen_lists=(True, False))

    assert lists.codes_BK.tolist() == [[5, 3, 7], [5, 3, 9]]
    assert lists.scores_BK[0].tolist() == pytest.approx([1.0, 0.8, 0.2])
    assert lists.sources_BK.tolist() == [[NEAR, NEAR, NEAR | EXPLORED], [NEAR, NEAR, NEAR]]


def test_of_equally_seldom_ones_the_likeliest_comes():
    assert explored([5, 3, 9, 1, 7], {1: 2, 7: 2}).codes_BK[0, -1] == 1


def test_an_item_without_a_row_was_never_shown():
    assert explored([5, 3, 9, 1, -4], {1: 1}).codes_BK[0, -1] == -4


def test_what_is_excluded_is_not_explored():
    assert explored([5, 3, 9, 1, 7], {1: 2}, excluded=[1]).codes_BK[0].tolist() == [5, 3, 7]


@pytest.mark.parametrize("candidates", [[5, 3, 9], [5, 3, 9, EMPTY], [5, 3, EMPTY, EMPTY]])
def test_a_list_stays_where_there_is_no_other_candidate(candidates):
    expected = rank_of(candidates)

    assert explored(candidates).codes_BK.tolist() == expected


def rank_of(candidates):
    return explored(candidates, chosen_lists=(False,)).codes_BK.tolist()


def test_a_list_of_one_keeps_its_best():
    assert explored([5, 3, 9], {3: 0}, k=1).codes_BK.tolist() == [[5]]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_the_share_of_lists_is_what_was_asked_for(share):
    digest_B = np.random.default_rng(0).integers(2**32, size=20_000, dtype=np.uint32)

    assert chosen(digest_B, share).mean() == pytest.approx(share, abs=0.02)


def test_what_is_shown_counts_so_the_next_list_explores_another():
    lists = explored([5, 3, 9, 1, 7], {1: 2, 7: 2}, chosen_lists=(True, True, True))

    assert lists.codes_BK[:, -1].tolist() == [1, 7, 1]


def test_counts_go_on_in_a_version_of_more_rows():
    before, after = Shown(3), Shown(5)
    before.add(np.array([[0, 2], [2, -4]]))

    after.go_on(before)
    after.add(np.array([4]))

    assert after.of(np.array([0, 1, 2, 4, -4, -1])).tolist() == [1, 0, 2, 1, 0, 0]
