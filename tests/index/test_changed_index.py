"""An index after some vectors changed. Shapes: N items, D dimensions, B queries, K best items."""

import numpy as np
import pytest

from index.item_index import IndexPlan, ItemIndex
from index.merge import best
from index.rescore import NO_ROW, rescore

DIM = 8


def unit_rows(num: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def turned(rows_ND: np.ndarray, noise: float, seed: int = 1) -> np.ndarray:
    rows = rows_ND + noise * unit_rows(len(rows_ND), seed)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def lists_of(vectors_ND: np.ndarray, num_lists: int, nprobe: int) -> IndexPlan:
    centroids_CD = unit_rows(num_lists, seed=7)
    nearest_N = np.argmax(vectors_ND @ centroids_CD.T, axis=1).astype(np.int32)
    return IndexPlan(centroids_CD, nearest_N, nprobe)


class Change:
    """An index of 400 items, of which some moved a little and some far; 5 items are new."""

    def __init__(self, kind: int = 1, *, nprobe: int = 10, side_capacity: int = 100) -> None:
        self.before_ND = unit_rows(400)
        plan = [IndexPlan(), lists_of(self.before_ND, 10, nprobe)][kind]
        self.index = ItemIndex.build(self.before_ND, plan, side_capacity=side_capacity)
        self.rows_M = np.random.default_rng(3).permutation(400)[:120].astype(np.int32)
        self.near_M, self.far_M = self.rows_M[:90], self.rows_M[90:]
        self.now_ND = np.concatenate([self.before_ND, unit_rows(5, seed=4)])
        self.now_ND[self.near_M] = turned(self.before_ND[self.near_M], 0.1)
        self.now_ND[self.far_M] = turned(self.before_ND[self.far_M], 2.0)
        self.changed = self.index.changed(self.now_ND, self.rows_M)


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("side_capacity", [100, 20, 4])
def test_every_found_row_has_the_score_of_its_vector_now_and_comes_once(
    kind: int, side_capacity: int
) -> None:
    change, queries_BD = Change(kind, side_capacity=side_capacity), unit_rows(60, seed=9)

    scores_BK, rows_BK = change.changed.search(queries_BD, 20)

    expected_BK = np.einsum("bd,bkd->bk", queries_BD, change.now_ND[rows_BK])
    np.testing.assert_allclose(scores_BK, expected_BK, atol=1e-5)
    assert (np.diff(scores_BK, axis=1) <= 0).all()
    assert all(len(set(rows)) == 20 for rows in rows_BK.tolist())
    assert (rows_BK >= 0).all()


@pytest.mark.parametrize("kind", [0, 1])
def test_visiting_everything_finds_nearly_what_exact_search_finds(kind: int) -> None:
    change, queries_BD = Change(kind), unit_rows(200, seed=9)

    assert change.changed.measure_recall(queries_BD, 20) > (0.99 if kind else 0.9999)


def test_new_and_far_moved_rows_are_found_where_they_are_now_and_not_where_they_were() -> None:
    change = Change()
    new_rows = np.arange(400, 405)

    for rows in (new_rows, change.far_M):
        found_B = change.changed.search(change.now_ND[rows], 1)[1][:, 0]
        assert found_B.tolist() == rows.tolist()
    at_old_B = change.changed.search(change.before_ND[change.far_M], 1)[1][:, 0]
    moved_away = np.einsum("md,md->m", change.before_ND, change.now_ND[:400])[change.far_M] < 0.5
    assert not (at_old_B == change.far_M)[moved_away].any()


def test_the_most_moved_rows_take_half_of_the_side_buffer_and_newcomers_the_rest() -> None:
    change = Change(side_capacity=20)

    assert change.changed.num_side == 10
    for number in range(10):
        change.changed.add(-2 - number, unit_rows(1, seed=50 + number)[0])
    cosine_M = np.einsum("md,md->m", change.before_ND, change.now_ND[:400])[change.rows_M]
    expected = {*range(400, 405), *change.rows_M[np.argsort(cosine_M)[:5]].tolist()}
    assert set(change.changed._side_rows_M[:10].tolist()) == expected


def test_every_new_row_is_searchable_however_many_there_are() -> None:
    vectors_ND = unit_rows(200)
    index = ItemIndex.build(vectors_ND, lists_of(vectors_ND, 10, 10), side_capacity=8)
    now_ND = np.concatenate([vectors_ND, unit_rows(30, seed=5)])

    changed = index.changed(now_ND, np.zeros(0, np.int32))

    assert changed.search(now_ND, 1)[1][:, 0].tolist() == list(range(230))
    for number in range(4):
        changed.add(-2 - number, now_ND[number])
    assert changed.num_side == 34


@pytest.mark.parametrize("nprobe", [1, 10])
def test_there_are_k_rows_also_when_the_visited_ones_were_set_aside(nprobe: int) -> None:
    change = Change(nprobe=nprobe, side_capacity=300)

    for k in (20, 200, 405):
        _, rows_BK = change.changed.search(unit_rows(30, seed=8), k)
        assert all(len(set(rows)) == k for rows in rows_BK.tolist())
    assert (change.changed.search(unit_rows(3, seed=8), 410)[1][:, 405:] == NO_ROW).all()


def test_the_bundles_index_stays_as_it_was() -> None:
    change, queries_BD = Change(), unit_rows(30, seed=9)
    alone = ItemIndex.build(change.before_ND, lists_of(change.before_ND, 10, 10))

    change.changed.add(-2, queries_BD[0])

    for mine, theirs in zip(
        change.index.search(queries_BD, 20), alone.search(queries_BD, 20), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    assert change.index.num_side == 0
    assert (change.index.num_items, change.changed.num_items) == (400, 405)


def test_recall_is_measured_against_the_vectors_now_each_row_once() -> None:
    change, queries_BD = Change(), unit_rows(50, seed=9)
    change.changed.add(-2, queries_BD[0])

    recall = change.changed.measure_recall(queries_BD, 20)

    rows = np.array([*range(405), -2])
    scores_BX = queries_BD @ np.concatenate([change.now_ND, queries_BD[:1]]).T
    expected_BK = rows[np.argsort(-scores_BX, axis=1)[:, :20]]
    _, found_BK = change.changed.search(queries_BD, 20)
    overlap = [len(set(f) & set(e)) / 20 for f, e in zip(found_BK, expected_BK, strict=True)]
    assert recall == pytest.approx(np.mean(overlap), abs=1e-3)


def test_a_version_without_items_may_get_some() -> None:
    index = ItemIndex.build(np.zeros((0, DIM), np.float32), IndexPlan())

    changed = index.changed(unit_rows(3), np.zeros(0, np.int32))

    assert changed.search(unit_rows(3), 1)[1][:, 0].tolist() == [0, 1, 2]


def test_rescoring_leaves_out_padding_and_what_is_aside() -> None:
    vectors_ND, queries_BD = unit_rows(4), unit_rows(1, seed=2)
    aside_N = np.array([False, False, True])
    scores_BC = np.full((1, 5), 7.0, np.float32)
    rows_BC = np.array([[0, 1, 2, 3, NO_ROW]])

    rescore(queries_BD, vectors_ND, aside_N, scores_BC, rows_BC)

    assert rows_BC.tolist() == [[0, 1, NO_ROW, 3, NO_ROW]]
    expected = vectors_ND[[0, 1, 3]] @ queries_BD[0]
    np.testing.assert_allclose(scores_BC[0, [0, 1, 3]], expected, atol=1e-6)
    assert np.isneginf(scores_BC[0, [2, 4]]).all()


def test_the_best_of_a_line_are_in_falling_order() -> None:
    scores_BX = np.array([[1, 3, 2, 5, 4, 0, 0]], np.float32)

    scores_BK, rows_BK = best(scores_BX, np.arange(7)[None], 3)

    assert (scores_BK.tolist(), rows_BK.tolist()) == ([[5, 4, 3]], [[3, 4, 1]])
