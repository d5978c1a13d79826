"""Items found by short codes and scored by their vectors."""

import numpy as np
import pytest

from index.lists import NONE_ASIDE, IndexPlan, Lists

DIM = 16


def unit_rows(num, *, dim=DIM, seed=0):
    rows = np.random.default_rng(seed).standard_normal((num, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def plan_of(vectors, num_lists, *, nprobe):
    centroids = unit_rows(num_lists, dim=vectors.shape[1], seed=9)
    numbers = (vectors @ centroids.T).argmax(axis=1).astype(np.int32)
    return IndexPlan(centroids, numbers, nprobe)


@pytest.mark.parametrize("dim", [1, 7, 16, 64, 96, 130])
def test_scores_are_those_of_the_vectors_whatever_the_dimensions(dim):
    vectors, queries = unit_rows(400, dim=dim), unit_rows(5, dim=dim, seed=1)
    lists = Lists(vectors, plan_of(vectors, 8, nprobe=8))

    scores, rows = lists.search(queries, 10, vectors, NONE_ASIDE)

    expected = np.take_along_axis(queries @ vectors.T, rows, axis=1)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_fewer_lists_find_no_better_items():
    vectors, queries = unit_rows(2_000), unit_rows(50, seed=1)
    lists = Lists(vectors, plan_of(vectors, 40, nprobe=40))
    everything, _ = lists.search(queries, 10, vectors, NONE_ASIDE)

    lists.probe(2)
    few, _ = lists.search(queries, 10, vectors, NONE_ASIDE)
    again, _ = lists.search(queries, 10, vectors, NONE_ASIDE, everywhere=True)

    assert (few <= everything + 1e-6).all()
    assert few.sum() < everything.sum()
    np.testing.assert_allclose(again, everything, atol=1e-6)


def test_what_is_aside_is_not_found_and_what_has_moved_is_scored_where_it_is():
    vectors = unit_rows(200)
    lists = Lists(vectors, plan_of(vectors, 4, nprobe=4))
    moved, aside = vectors.copy(), np.zeros(200, np.bool_)
    moved[3], aside[5] = -vectors[3], True

    scores, rows = lists.search(vectors[[3, 5]], 200, moved, aside)

    assert rows[0, 0] != 3
    assert scores[0][rows[0] == 3].tolist() == pytest.approx([-1.0])
    assert 5 not in rows
    assert np.isneginf(scores[rows == -1]).all()


def test_equal_vectors_give_equal_lists():
    vectors, queries = unit_rows(300), unit_rows(9, seed=1)
    plan = plan_of(vectors, 10, nprobe=3)

    found = [Lists(vectors, plan).search(queries, 20, vectors, NONE_ASIDE) for _ in range(2)]

    np.testing.assert_array_equal(found[0][1], found[1][1])
