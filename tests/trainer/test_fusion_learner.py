"""The trainer's side of fusion: examples before learning, clicks afterwards, a ranker from both."""

import numpy as np
import pytest
import torch

from index.click_memory import NO_CLICK
from trainer.fusion_learner import FusionLearner, rings_before_targets
from trainer.settings import FusionSettings
from trainer.windows import from_lists

ITEMS, DIM = 30, 8


@pytest.fixture
def vectors():
    torch.manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(ITEMS, DIM), dim=1)


@pytest.fixture
def make_fusion():
    def make(**settings):
        return FusionLearner(FusionSettings(max_clicks=500, **settings), temperature=12.0)

    return make


def chains(num, *, seed):
    """Sessions in which n is followed by n + 1."""
    starts = np.random.default_rng(seed).integers(ITEMS - 4, size=num)
    return [list(range(start, start + 4)) for start in starts.tolist()]


def show(fusion, sessions, vectors, rng):
    """Have the sessions observed, then remembered."""
    windows = from_lists(sessions, [1] * len(sessions))
    queries = vectors[torch.from_numpy(windows.target_rows)] * 0 + vectors[0]
    fusion.observe(windows, queries, vectors, rng)
    for rows in sessions:
        first = fusion.memory.num_added
        before = np.array([NO_CLICK, *range(first, first + len(rows) - 1)])
        fusion.remember(np.array(rows), np.zeros(len(rows), np.int64), before)


def test_rings_hold_what_came_before_each_target_newest_first():
    rings, targets = rings_before_targets(from_lists([[4, 5, 6], [7, 8]], [1, 1]))

    assert targets.tolist() == [5, 6, 8]
    assert rings[:, :3].tolist() == [[4, -1, -1], [5, 4, -1], [7, -1, -1]]


def test_a_ranker_comes_with_enough_examples_and_follows_new_ones(make_fusion, vectors):
    fusion, rng = make_fusion(min_examples=100), np.random.default_rng(0)
    show(fusion, chains(20, seed=1), vectors, rng)
    assert not fusion.refit(seed=0)
    assert fusion.weights is None

    show(fusion, chains(60, seed=2), vectors, rng)

    assert fusion.refit(seed=0)
    assert fusion.weights is not None
    assert not fusion.refit(seed=0)


def test_a_ranker_that_is_not_finite_is_no_start_for_the_next(make_fusion, vectors):
    fusion, rng = make_fusion(min_examples=30), np.random.default_rng(0)
    show(fusion, chains(20, seed=1), vectors, rng)
    fusion.refit(seed=0)
    fusion.weights.linear_F[0] = np.nan
    show(fusion, chains(60, seed=2), vectors, rng)

    assert fusion.refit(seed=0)

    assert all(np.isfinite(array).all() for array in fusion.weights)


def test_vectors_that_are_not_finite_make_no_example(make_fusion, vectors):
    fusion = make_fusion(min_examples=1)
    broken = vectors.clone()
    broken[:] = torch.nan

    show(fusion, chains(20, seed=1), broken, np.random.default_rng(0))

    assert not fusion.refit(seed=0)


def test_a_restored_learner_fits_the_same_ranker(make_fusion, vectors):
    rng = np.random.default_rng(0)
    one, two = (
        make_fusion(min_examples=50, max_examples=120),
        make_fusion(min_examples=50, max_examples=120),
    )
    show(one, chains(60, seed=1), vectors, rng)
    one.refit(seed=0)
    show(one, chains(40, seed=2), vectors, rng)

    two.restore(one.tensors())

    assert one.refit(seed=3)
    assert two.refit(seed=3)
    assert one.weights is not None
    assert two.weights is not None
    assert all((a == b).all() for a, b in zip(one.weights, two.weights, strict=True))
    assert two.memory.num_added == one.memory.num_added


def test_with_less_room_the_latest_examples_stay(make_fusion, vectors):
    roomy = make_fusion(min_examples=20, max_examples=200)
    show(roomy, chains(60, seed=1), vectors, np.random.default_rng(0))
    before = {name: tensor.numpy() for name, tensor in roomy.tensors().items()}
    assert len(before["examples.num_M"]) > 40

    roomy.keep_examples(40)

    after = {name: tensor.numpy() for name, tensor in roomy.tensors().items()}
    for name in ("examples.features_MCF", "examples.num_M", "examples.target_M"):
        np.testing.assert_array_equal(after[name], before[name][-40:])
    assert roomy.refit(seed=0)


def test_channels_that_are_off_bring_no_example(make_fusion, vectors):
    rng = np.random.default_rng(0)
    rules = make_fusion(min_examples=50, channels=("rules",))
    near = make_fusion(min_examples=50, channels=("rnn",))

    for fusion in (rules, near):
        show(fusion, chains(60, seed=1), vectors, rng)

    assert not rules.refit(seed=0)  # there was nothing that the first sessions could follow
    assert near.refit(seed=0)
    show(rules, chains(60, seed=2), vectors, rng)
    assert rules.refit(seed=0)


def test_a_ranker_of_other_channels_is_left_behind_and_the_clicks_are_not(make_fusion, vectors):
    one = make_fusion(min_examples=50)
    show(one, chains(60, seed=1), vectors, np.random.default_rng(0))
    one.refit(seed=0)
    other = make_fusion(min_examples=1, channels=("rnn", "knn"))

    other.restore(one.tensors())

    assert other.weights is None
    assert not other.refit(seed=0)
    assert other.memory.num_added == one.memory.num_added


def test_a_checkpoint_that_names_no_channels_means_all(make_fusion, vectors):
    one, two = make_fusion(min_examples=50), make_fusion()
    show(one, chains(60, seed=1), vectors, np.random.default_rng(0))
    one.refit(seed=0)
    tensors = one.tensors()
    del tensors["channels"]

    two.restore(tensors)

    assert two.weights is not None


def test_channels_are_kept_once_each_in_one_order():
    assert FusionSettings(channels=("popular", "rnn", "popular")).channels == ("rnn", "popular")
    with pytest.raises(ValueError, match="at least 1"):
        FusionSettings(channels=())
