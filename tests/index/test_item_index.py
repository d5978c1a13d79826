"""Shapes: N items, D dimensions, B queries, K best items."""

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from index.item_index import IndexFullError, IndexPlan, ItemIndex

DIM = 8


def unit_rows(num: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def lists_of(vectors_ND: np.ndarray, num_lists: int, nprobe: int) -> IndexPlan:
    centroids_CD = unit_rows(num_lists, seed=7)
    nearest_N = np.argmax(vectors_ND @ centroids_CD.T, axis=1).astype(np.int32)
    return IndexPlan(centroids_CD, nearest_N, nprobe)


def plans(vectors_ND: np.ndarray) -> list[IndexPlan]:
    return [IndexPlan(), lists_of(vectors_ND, 10, nprobe=10)]


def naive(
    vectors_ND: np.ndarray, side: dict[int, np.ndarray], queries_BD: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    rows = np.array([*range(len(vectors_ND)), *side])
    scores = queries_BD @ np.concatenate([vectors_ND, *(v[None] for v in side.values())]).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), rows[order]


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("num_side", [0, 3, 40])
@pytest.mark.parametrize("num_queries", [1, 19, 64])
def test_a_search_visiting_everything_equals_the_naive_one(
    kind: int, num_side: int, num_queries: int
) -> None:
    vectors_ND, queries_BD = unit_rows(300), unit_rows(num_queries, seed=1)
    side = {-2 - n: vector for n, vector in enumerate(unit_rows(num_side, seed=2))}
    index = ItemIndex.build(vectors_ND, plans(vectors_ND)[kind])
    for row, vector in side.items():
        index.add(row, vector)

    scores_BK, rows_BK = index.search(queries_BD, 20)

    expected_BK, expected_rows_BK = naive(vectors_ND, side, queries_BD, 20)
    assert (scores_BK.dtype, rows_BK.dtype) == (np.float32, np.int64)
    # Lists find by short codes first: of the last places a few may be the next best.
    places = slice(None) if kind == 0 else slice(12)
    np.testing.assert_allclose(scores_BK[:, places], expected_BK[:, places], atol=1e-5)
    np.testing.assert_array_equal(rows_BK[:, places], expected_rows_BK[:, places])
    assert np.isclose(scores_BK, expected_BK, atol=1e-5).mean() > 0.99


def test_newcomers_that_beat_every_item_are_all_found() -> None:
    vectors_ND, query_D = -unit_rows(100), unit_rows(1)[0]
    index = ItemIndex.build(vectors_ND * 0.01, IndexPlan())
    for number in range(50):
        index.add(1000 + number, query_D * (1 + number))

    scores_BK, rows_BK = index.search(np.stack([query_D, -query_D]), 10)

    assert rows_BK[0].tolist() == list(range(1049, 1039, -1))
    assert (rows_BK[1] < 100).all()
    assert scores_BK[0, 0] == pytest.approx(50, rel=1e-5)


@pytest.mark.parametrize("kind", [0, 1])
def test_more_places_than_items_are_padded(kind: int) -> None:
    vectors_ND = unit_rows(4)
    plan = [IndexPlan(), lists_of(vectors_ND, 2, nprobe=1)][kind]
    index = ItemIndex.build(vectors_ND, plan)
    index.add(-2, vectors_ND[0])

    scores_BK, rows_BK = index.search(unit_rows(3, seed=1), 9)

    assert (np.sort(rows_BK[:, :5]) == [-2, 0, 1, 2, 3]).all()
    assert (rows_BK[:, 5:] == -1).all()
    assert np.isneginf(scores_BK[:, 5:]).all()


def test_lists_with_too_few_items_are_filled_from_all_others() -> None:
    vectors_ND = unit_rows(200)
    index = ItemIndex.build(vectors_ND, lists_of(vectors_ND, 100, nprobe=1))

    _, rows_BK = index.search(unit_rows(50, seed=3), 30)

    assert (rows_BK >= 0).all()
    assert all(len(set(rows)) == 30 for rows in rows_BK.tolist())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [0, 1])
def test_a_query_that_is_not_finite_gets_padding_and_harms_no_other(bad: float, kind: int) -> None:
    vectors_ND, queries_BD = unit_rows(50), unit_rows(3, seed=1)
    index = ItemIndex.build(vectors_ND, plans(vectors_ND)[kind])
    index.add(-9, vectors_ND[3])
    clean_scores, clean_rows = index.search(queries_BD, 5)
    queries_BD[1, 2] = bad

    scores_BK, rows_BK = index.search(queries_BD, 5)

    assert (rows_BK[1] == -1).all()
    assert np.isneginf(scores_BK[1]).all()
    np.testing.assert_array_equal(rows_BK[[0, 2]], clean_rows[[0, 2]])
    np.testing.assert_allclose(scores_BK[[0, 2]], clean_scores[[0, 2]], atol=1e-6)
    assert queries_BD[1, 2] == bad or np.isnan(bad)


def test_no_queries_and_no_items_give_empty_answers() -> None:
    empty = ItemIndex.build(np.empty((0, DIM), np.float32), IndexPlan())
    full = ItemIndex.build(unit_rows(5), IndexPlan())

    assert full.search(np.empty((0, DIM), np.float32), 3)[1].shape == (0, 3)
    assert (empty.search(unit_rows(2), 3)[1] == -1).all()
    assert empty.measure_recall(unit_rows(2), 3) == 1.0
    empty.add(-2, unit_rows(1)[0])
    assert empty.search(unit_rows(2), 3)[1][:, 0].tolist() == [-2, -2]


def test_other_dimensions_are_refused() -> None:
    index = ItemIndex.build(unit_rows(5), IndexPlan())

    for queries in (np.zeros((2, DIM + 1), np.float32), np.zeros(DIM, np.float32)):
        with pytest.raises(ValueError, match="dimensions"):
            index.search(queries, 3)
    with pytest.raises(ValueError, match="k is 0"):
        index.search(unit_rows(1), 0)
    with pytest.raises(ValueError, match="not \\(items, dimensions\\)"):
        ItemIndex.build(np.zeros(3, np.float32), IndexPlan())


def test_a_newcomer_added_again_changes_its_vector() -> None:
    vectors_ND = unit_rows(20)
    index = ItemIndex.build(vectors_ND, IndexPlan())
    index.add(-5, vectors_ND[0])

    index.add(-5, -vectors_ND[0])

    assert index.num_side == 1
    assert -5 not in index.search(vectors_ND[:1], 10)[1]
    assert index.search(-vectors_ND[:1], 1)[1].tolist() == [[-5]]


def test_a_full_side_buffer_refuses_newcomers_and_still_replaces() -> None:
    vectors_ND = unit_rows(20)
    index = ItemIndex.build(vectors_ND, IndexPlan(), side_capacity=2)
    index.add(-2, vectors_ND[0])
    index.add(-3, vectors_ND[1])

    with pytest.raises(IndexFullError, match="2 items"):
        index.add(-4, vectors_ND[2])

    index.add(-3, vectors_ND[2])
    assert index.num_side == 2


@pytest.mark.parametrize("row", [-1, 0, 19])
def test_rows_that_mean_something_else_are_no_newcomers(row: int) -> None:
    with pytest.raises(ValueError, match="not a newcomer's"):
        ItemIndex.build(unit_rows(20), IndexPlan()).add(row, unit_rows(1)[0])


@pytest.mark.parametrize("vector", [np.zeros(3, np.float32), np.full(DIM, np.nan, np.float32)])
def test_a_newcomer_without_a_usable_vector_is_refused(vector: np.ndarray) -> None:
    index = ItemIndex.build(unit_rows(20), IndexPlan())

    with pytest.raises(ValueError, match="finite numbers"):
        index.add(-2, vector)

    assert index.num_side == 0


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (IndexPlan(unit_rows(2), None, 1), "one list number per item"),
        (IndexPlan(unit_rows(2), np.zeros(3, np.int32), 1), "one list number per item"),
        (IndexPlan(unit_rows(2), np.full(20, 2, np.int32), 1), "names no centroid"),
        (IndexPlan(unit_rows(2), np.full(20, -1, np.int32), 1), "names no centroid"),
        (IndexPlan(unit_rows(2)[:, :4], np.zeros(20, np.int32), 1), "centroids of shape"),
    ],
)
def test_a_plan_of_other_vectors_is_refused_before_it_writes_outside_memory(
    lists: IndexPlan, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ItemIndex.build(unit_rows(20), lists)


def test_the_quantiser_lives_as_long_as_the_index() -> None:
    vectors_ND = unit_rows(500)
    index = ItemIndex.build(vectors_ND, lists_of(vectors_ND, 20, nprobe=20))

    gc.collect()

    assert index.search(vectors_ND, 1)[1][:, 0].tolist() == list(range(500))


def test_an_index_built_in_another_thread_serves_here() -> None:
    vectors_ND = unit_rows(500)
    with ThreadPoolExecutor(1) as pool:
        index = pool.submit(ItemIndex.build, vectors_ND, plans(vectors_ND)[1]).result(timeout=30)

    assert index.search(vectors_ND[:1], 1)[1].tolist() == [[0]]


def test_recall_falls_when_few_lists_are_visited_and_is_one_when_exact() -> None:
    vectors_ND, queries_BD = unit_rows(2000), unit_rows(64, seed=1)
    exact = ItemIndex.build(vectors_ND, IndexPlan())
    narrow = ItemIndex.build(vectors_ND, lists_of(vectors_ND, 40, nprobe=1))
    for index in (exact, narrow):
        index.add(-2, queries_BD[0])

    assert exact.measure_recall(queries_BD, 20) == 1.0
    recall = narrow.measure_recall(queries_BD, 20)
    assert 0.05 < recall < 0.9
    _, found_BK = narrow.search(queries_BD, 20)
    _, best_BK = naive(vectors_ND, {-2: queries_BD[0]}, queries_BD, 20)
    overlap = np.mean([len(set(f) & set(b)) / 20 for f, b in zip(found_BK, best_BK, strict=True)])
    assert recall == pytest.approx(overlap, abs=1e-3)


def test_equal_scores_count_as_found() -> None:
    vectors_ND = np.repeat(unit_rows(1), 100, axis=0)
    index = ItemIndex.build(vectors_ND, IndexPlan())

    assert index.measure_recall(vectors_ND[:3], 10) == 1.0
