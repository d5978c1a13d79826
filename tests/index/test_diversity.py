"""A diverse list: what the definition says, in the order it had, newcomers like nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.diversity import diverse_places

ITEMS, DIM = 30, 4


@pytest.fixture(scope="module")
def vectors():
    vectors = np.random.default_rng(3).standard_normal((ITEMS, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def places(codes, logits, vectors, *, weight, k, num=None):
    codes_BT, logits_BT = np.array([codes], np.int64), np.array([logits], np.float32)
    num_B = np.array([len(codes) if num is None else num])
    return diverse_places(codes_BT, logits_BT, num_B, vectors, weight, k)[0].tolist()


def by_definition(codes, logits, vectors, weight, k):
    cosine = vectors @ vectors.T
    shares = np.exp(logits) / np.exp(logits).sum()
    chosen: list[int] = []
    while len(chosen) < min(k, len(codes)):
        gains = {}
        for place in sorted(set(range(len(codes))) - set(chosen)):
            like = [
                cosine[codes[place], codes[c]] if min(codes[place], codes[c]) >= 0 else 0.0
                for c in chosen
            ]
            gains[place] = shares[place] - weight / k * np.mean(like or [0.0])
        chosen.append(max(gains, key=lambda place: gains[place]))
    return sorted(chosen)


@settings(deadline=None)  # the first call compiles
@given(
    codes=st.lists(st.integers(-8, ITEMS - 1).filter(lambda c: c != -1), max_size=20, unique=True),
    weight=st.floats(0.05, 0.95),
    k=st.integers(1, 12),
    seed=st.integers(0, 100),
)
def test_each_step_takes_what_the_definition_says(vectors, codes, weight, k, seed):
    logits = np.sort(np.random.default_rng(seed).normal(size=len(codes)))[::-1].tolist()

    found = places(codes, logits, vectors, weight=weight, k=k)

    wanted = by_definition(codes, logits, vectors, weight, k)
    assert found == wanted + [-1] * (k - len(wanted))


def test_without_weight_the_best_stay():
    vectors = np.ones((4, 1), np.float32)

    assert places([2, 0, 1, 3], [3.0, 2.0, 2.0, 2.0], vectors, weight=0.0, k=3) == [0, 1, 2]


def test_a_copy_of_a_better_item_makes_room_and_a_newcomer_does_not():
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)

    assert places([0, 1, 2], [1.0, 0.9, 0.5], vectors, weight=0.9, k=2) == [0, 2]
    assert places([0, -4, 2], [1.0, 0.9, 0.5], vectors, weight=0.9, k=2) == [0, 1]


def test_what_lies_beyond_the_last_candidate_is_never_chosen(vectors):
    assert places([4, 5, -1], [1.0, 0.9, 99.0], vectors, weight=0.5, k=3, num=2) == [0, 1, -1]


def test_a_list_without_candidates_stays_empty(vectors):
    assert places([-1, -1], [0.0, 0.0], vectors, weight=0.5, k=2, num=0) == [-1, -1]
