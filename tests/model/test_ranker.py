"""The order of candidates: linear for all, a network for the best."""

import numpy as np
import pytest

from model.ranker import TOP, UNITS, linear_scores, rank_candidates, shapes

FEATURES = 3


@pytest.fixture
def weights():
    """The linear score is the first feature; the network adds the second one."""
    empty = shapes(FEATURES)
    linear, skip = np.array([1, 0, 0], np.float32), np.zeros(FEATURES + 2, np.float32)
    skip[1], skip[FEATURES] = 1, 1
    return empty._replace(scale_F=np.ones(FEATURES, np.float32), linear_F=linear, skip_X=skip)


def features_of(*candidates, width=TOP + 20):
    features = np.zeros((1, width, FEATURES), np.float32)
    features[0, : len(candidates), : len(candidates[0])] = candidates
    return features, np.array([len(candidates)])


def test_the_network_reorders_what_the_linear_score_chose(weights):
    ranked = rank_candidates(weights, *features_of((3, 0), (1, 4), (2, 0)))

    assert ranked.places_BT[0, :3].tolist() == [1, 0, 2]
    assert ranked.scores_BT[0, :3].tolist() == pytest.approx([2.0, 0.0, -1.0])
    assert (ranked.places_BT[0, 3:] == -1).all()
    assert np.isneginf(ranked.scores_BT[0, 3:]).all()


def test_what_is_far_below_by_the_linear_score_does_not_reach_the_network(weights):
    candidates = [(100 - n, 0) for n in range(TOP)] + [(-50, 1_000)]

    ranked = rank_candidates(weights, *features_of(*candidates))

    assert ranked.places_BT[0].tolist() == list(range(TOP))


def test_a_session_without_candidates_has_no_list(weights):
    features, _ = features_of((1, 1))

    ranked = rank_candidates(weights, features, np.array([0]))

    assert (ranked.places_BT == -1).all()


def test_features_are_standardised(weights):
    weights = weights._replace(
        mean_F=np.array([10, 0, 0], np.float32), scale_F=np.array([2, 1, 1], np.float32)
    )

    scores = linear_scores(weights, *features_of((14, 0)))

    assert scores[0, 0] == pytest.approx(2.0)


def test_the_hidden_units_are_part_of_the_score(weights):
    rng = np.random.default_rng(0)
    first = rng.standard_normal((FEATURES + 2, UNITS)).astype(np.float32)
    second = rng.standard_normal((UNITS, UNITS)).astype(np.float32)
    last = rng.standard_normal(UNITS).astype(np.float32)
    weights = weights._replace(first_XU=first, second_UU=second, last_U=last)

    ranked = rank_candidates(weights, *features_of((2, 1), (1, 0)))

    for place, score in zip(ranked.places_BT[0, :2], ranked.scores_BT[0, :2], strict=True):
        x = np.array([[2, 1, 0, 0, 1], [1, 0, 0, -1, 0.5]], np.float32)[place]
        hidden = np.maximum(np.maximum(x @ first, 0) @ second, 0)
        assert score == pytest.approx(hidden @ last + x[1] + x[3], rel=1e-4)
