"""Fitting the ranker: it learns what decides, continues from earlier weights, and is repeatable."""

import numpy as np
import pytest

from model.ranker import rank_candidates
from trainer.ranker_fit import Examples, fit_ranker

WIDTH, FEATURES = 30, 5


def make_examples(num=600, *, sign=1.0, seed=0):
    """The candidate with the largest (smallest) second feature is clicked, nearly always."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((num, WIDTH, FEATURES)).astype(np.float16)
    num_M = rng.integers(5, WIDTH + 1, size=num)
    key = sign * features[:, :, 1].astype(np.float32)
    key[np.arange(WIDTH) >= num_M[:, None]] = -np.inf
    return Examples(features, num_M, key.argmax(axis=1))


def hit_rate(weights, examples):
    ranked = rank_candidates(weights, examples.features_MCF.astype(np.float32), examples.num_M)
    return float((ranked.places_BT[:, 0] == examples.target_M).mean())


def test_it_learns_which_candidate_is_clicked():
    weights = fit_ranker(make_examples(), seed=0)

    assert hit_rate(weights, make_examples(seed=1)) > 0.8
    assert np.abs(weights.linear_F).argmax() == 1


def test_a_second_fit_goes_on_from_the_first():
    first = fit_ranker(make_examples(), seed=0)

    second = fit_ranker(make_examples(64, seed=2), start=first, seed=0)

    assert hit_rate(second, make_examples(seed=1)) > 0.8
    assert hit_rate(fit_ranker(make_examples(64, seed=2), seed=0), make_examples(seed=1)) < 0.8
    np.testing.assert_array_equal(second.mean_F, first.mean_F)


def test_equal_seeds_give_equal_weights():
    one, two = (fit_ranker(make_examples(200), seed=5) for _ in range(2))

    assert all((a == b).all() for a, b in zip(one, two, strict=True))


def test_without_examples_there_is_nothing_to_fit():
    with pytest.raises(ValueError, match="no click"):
        fit_ranker(make_examples().select(np.zeros(0, np.int64)), seed=0)
