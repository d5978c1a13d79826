"""Shapes: N items, D dimensions, Q queries."""

import numpy as np
import pytest

import index.plan as planning
from index.item_index import IndexPlan, ItemIndex, plan

DIM = 16


def clustered(num: int, spread: float = 0.5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((60, DIM))
    rows = centres[rng.integers(0, 60, num)] + spread * rng.standard_normal((num, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def small_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "EXACT_BELOW_ITEMS", 1000)


def test_a_small_catalogue_is_searched_exactly() -> None:
    assert plan(clustered(2000), clustered(50, seed=1)).num_lists == 0


def test_without_real_queries_the_search_is_exact() -> None:
    vectors_ND = clustered(planning.EXACT_BELOW_ITEMS)

    assert plan(vectors_ND, np.empty((0, DIM), np.float32)).num_lists == 0
    assert plan(vectors_ND, np.full((3, DIM), np.nan, np.float32)).num_lists == 0


@pytest.mark.usefixtures("small_threshold")
def test_the_planned_index_meets_the_target_with_the_smallest_nprobe() -> None:
    vectors_ND, queries_QD = clustered(4000), clustered(300, seed=1)

    chosen = plan(vectors_ND, queries_QD, k=20, target=0.99)

    assert chosen.num_lists == int(4 * 4000**0.5)
    assert chosen.recall >= 0.99
    measured = ItemIndex.build(vectors_ND, chosen).measure_recall(queries_QD, 20)
    assert measured == pytest.approx(chosen.recall, abs=1e-3)
    fewer = IndexPlan(chosen.centroids_CD, chosen.list_numbers_N, chosen.nprobe - 1)
    assert ItemIndex.build(vectors_ND, fewer).measure_recall(queries_QD, 20) < 0.99


@pytest.mark.usefixtures("small_threshold")
def test_lists_that_would_not_save_enough_are_not_planned() -> None:
    structureless_ND = np.random.default_rng(0).standard_normal((2000, 64)).astype(np.float32)

    assert plan(structureless_ND, structureless_ND[::5] * -1, target=0.999).num_lists == 0


@pytest.mark.usefixtures("small_threshold")
def test_the_direction_that_queries_share_has_a_list_of_its_own() -> None:
    queries_QD = clustered(200) + np.eye(DIM, dtype=np.float32)[0]
    mean_D = queries_QD.mean(axis=0)

    chosen = plan(clustered(2000), queries_QD)

    assert chosen.centroids_CD is not None
    shared_D = mean_D / np.linalg.norm(mean_D)
    np.testing.assert_allclose(chosen.centroids_CD[-1], shared_D, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("small_threshold")
def test_equal_arguments_give_equal_plans() -> None:
    vectors_ND, queries_QD = clustered(2000), clustered(100, seed=1)

    first, second = (plan(vectors_ND, queries_QD, seed=3) for _ in range(2))

    assert first.nprobe == second.nprobe
    assert first.centroids_CD is not None
    assert second.centroids_CD is not None
    np.testing.assert_array_equal(first.centroids_CD, second.centroids_CD)
    np.testing.assert_array_equal(first.list_numbers_N, second.list_numbers_N)


@pytest.mark.usefixtures("small_threshold")
def test_centroids_are_kept_while_they_reach_the_target() -> None:
    first = plan(clustered(4000), clustered(300, seed=1))
    assert first.centroids_CD is not None

    later = plan(clustered(4200, seed=2), clustered(300, seed=3), previous=first)

    assert later.centroids_CD is first.centroids_CD
    assert later.list_numbers_N is not None
    assert len(later.list_numbers_N) == 4200
    assert later.recall >= 0.99


@pytest.mark.usefixtures("small_threshold")
def test_a_catalogue_that_has_grown_gets_centroids_of_its_own() -> None:
    first = plan(clustered(2000), clustered(300, seed=1))

    later = plan(clustered(4000), clustered(300, seed=1), previous=first)

    assert later.num_lists == int(4 * 4000**0.5)


@pytest.mark.usefixtures("small_threshold")
def test_centroids_that_no_longer_fit_are_made_anew() -> None:
    vectors_ND, queries_QD = clustered(4000), clustered(300, seed=1)
    first = plan(vectors_ND, queries_QD)
    assert first.centroids_CD is not None
    elsewhere = IndexPlan(np.roll(first.centroids_CD[:1], 1) * np.ones((252, 1), np.float32))

    later = plan(vectors_ND, queries_QD, previous=elsewhere)

    assert later.centroids_CD is not elsewhere.centroids_CD
    assert later.recall >= 0.99
