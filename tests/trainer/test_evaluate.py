import numpy as np
import pytest
import torch

from trainer.evaluate import Score, score, target_ranks, thin, times_shown
from trainer.windows import from_lists


def test_ranks_recall_and_mrr_equal_those_counted_by_hand():
    vectors_ND = torch.eye(4)
    queries_MD = torch.tensor([[0.9, 0.3, 0.2, 0.1], [0.9, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.9]])

    ranks_M = target_ranks(queries_MD, vectors_ND, np.asarray([0, 2, 0]))
    measured = score(ranks_M, k=3)

    assert ranks_M.tolist() == [1, 3, 4]
    assert measured.recall == pytest.approx(2 / 3)
    assert measured.mrr == pytest.approx((1 + 1 / 3) / 3)


def test_every_tie_counts_against_the_target():
    ranks_M = target_ranks(torch.zeros(1, 2), torch.ones(50, 2), np.asarray([7]))

    assert ranks_M.tolist() == [50]
    assert score(ranks_M).hits == 0


def test_an_item_without_a_row_is_a_miss_even_in_a_tiny_catalogue():
    ranks_M = target_ranks(torch.ones(2, 2), torch.eye(2), np.asarray([5, 1]))

    assert ranks_M.tolist() == [3, 2]


def test_a_score_that_is_not_finite_is_a_miss():
    ranks_M = target_ranks(torch.full((1, 2), float("nan")), torch.eye(2), np.asarray([0]))

    assert ranks_M.tolist() == [3]


def test_blocks_do_not_change_the_ranks(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    queries_MD = torch.randn(30, 8, generator=generator)
    vectors_ND = torch.randn(100, 8, generator=generator)
    targets_M = np.arange(30) * 3
    whole = target_ranks(queries_MD, vectors_ND, targets_M)

    monkeypatch.setattr("trainer.evaluate._BLOCK_SCORES", 700)

    assert np.array_equal(target_ranks(queries_MD, vectors_ND, targets_M), whole)


def test_scores_of_disjoint_clicks_add_up():
    joined = score(np.asarray([1, 30])) + score(np.asarray([2]))

    assert joined == Score(3, 2, 1.5)
    assert Score().recall == 0


def test_it_counts_the_lists_that_show_an_item():
    queries_MD = torch.tensor([[1.0, 0.2, 0.0, 0.0], [0.9, 0.0, 0.1, 0.0]])

    assert times_shown(queries_MD, torch.eye(4), k=2).tolist() == [2, 1, 1, 0]
    assert times_shown(queries_MD, torch.eye(4)[:0], k=1).tolist() == []


def test_thinning_keeps_at_most_the_wanted_predictions_spread_over_all_windows():
    windows = from_lists([[n, n + 1] for n in range(100)], [1] * 100)

    thinned = thin(windows, 10)

    assert thinned.num_targets == 10
    assert thinned.rows_BT[0, 0] == 0
    assert thinned.rows_BT[-1, 0] == 99
    assert thin(windows, 1000) is windows
