import numpy as np
import pytest
import torch

from trainer.evaluate import score, target_ranks
from trainer.learner import queries
from trainer.windows import from_lists


def ring_windows(num: int, *, items: int = 30, seed: int = 0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 12, num)
    starts = rng.integers(items, size=num)
    rows = [
        ((start + np.arange(length)) % items).tolist()
        for start, length in zip(starts, lengths, strict=True)
    ]
    return from_lists(rows, [1] * num)


@pytest.mark.parametrize("full_softmax_items", [5000, 0])
def test_it_learns_which_item_follows_which(make_learner, full_softmax_items):
    learner = make_learner(items=30, full_softmax_items=full_softmax_items, negatives=64)
    windows = ring_windows(100)

    losses = [learner.learn(windows).loss for _ in range(60)]

    vectors_ND = learner.items.unit_vectors()
    ranks_M = target_ranks(
        queries(learner.encoder, vectors_ND, windows), vectors_ND, windows.target_rows
    )
    assert losses[-1] < 0.3 * losses[0]
    assert score(ranks_M, k=1).recall > 0.9


@pytest.mark.parametrize("settings", [{"loss": "bpr_max"}, {"hard_negatives": 5}])
def test_other_losses_learn_the_same(make_learner, settings):
    learner = make_learner(items=30, full_softmax_items=0, negatives=64, **settings)
    other = make_learner(items=30, full_softmax_items=0, negatives=64)
    windows = ring_windows(100)

    losses = [learner.learn(windows).loss for _ in range(60)]

    vectors_ND = learner.items.unit_vectors()
    ranks_M = target_ranks(
        queries(learner.encoder, vectors_ND, windows), vectors_ND, windows.target_rows
    )
    assert losses[0] != other.learn(windows).loss
    assert score(ranks_M, k=1).recall > 0.9


@pytest.mark.parametrize("settings", [{}, {"loss": "bpr_max"}, {"hard_negatives": 5}])
def test_a_catalogue_of_one_item_is_no_reason_to_refuse_a_step(make_learner, settings):
    step = make_learner(items=1, **settings).learn(from_lists([[0, 0]], [1]))

    assert step.refused is None


def test_only_rows_of_the_step_move(make_learner):
    learner = make_learner(items=2000, full_softmax_items=0, negatives=5)
    before_ND = learner.items.weights_ND.clone()

    learner.learn(from_lists([[1, 2, 3]], [1]))

    moved = (learner.items.weights_ND != before_ND).any(1).nonzero().squeeze(1).tolist()
    assert {1, 2, 3} <= set(moved)
    assert len(moved) <= 3 + 5


def test_a_step_of_few_clicks_moves_the_encoder_less(make_learner):
    moved = []
    for num in (1, 300):
        learner = make_learner(items=30)
        before = [weight.clone() for weight in learner.encoder.parameters()]
        learner.learn(ring_windows(num))
        after = learner.encoder.parameters()
        with torch.no_grad():
            moved.append(
                max(float((a - b).abs().max()) for a, b in zip(before, after, strict=True))
            )

    assert 0 < moved[0] < 0.1 * moved[1]


def test_equal_seeds_give_equal_weights_whatever_the_global_generator_does(make_learner):
    weights = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        learner = make_learner(items=30, full_softmax_items=0, negatives=8)
        for seed in range(5):
            learner.learn(ring_windows(20, seed=seed))
        weights.append(learner.items.weights_ND.clone())

    assert torch.equal(*weights)


def test_a_loss_that_is_not_finite_changes_nothing(make_learner):
    learner = make_learner(items=30)
    learner.items.weights_ND[3] = float("nan")
    before = [parameter.clone() for parameter in learner.encoder.parameters()]

    step = learner.learn(ring_windows(20))

    assert step.refused == "loss"
    assert learner.progress.refused == 1
    assert learner.items.weights_ND[:3].isfinite().all()
    for old, new in zip(before, learner.encoder.parameters(), strict=True):
        assert torch.equal(old, new)


def test_a_gradient_above_the_cap_changes_nothing(make_learner):
    learner = make_learner(items=30, max_gradient_norm=1e-9)
    before_ND = learner.items.weights_ND.clone()

    step = learner.learn(ring_windows(20))

    assert step.refused == "gradient"
    assert torch.equal(learner.items.weights_ND, before_ND)


def test_accumulators_are_halved_so_that_learning_does_not_die_out(make_learner):
    windows = ring_windows(20)
    learner = make_learner(items=30, accumulator_halving_clicks=windows.num_targets)
    other = make_learner(items=30)

    learner.learn(windows)
    other.learn(windows)

    assert torch.equal(learner.items.accumulators_N, other.items.accumulators_N / 2)


def test_an_admitted_item_starts_near_what_was_clicked_before_it(make_learner):
    learner = make_learner(items=30)
    vectors_ND = learner.items.unit_vectors()
    beside_D = torch.nn.functional.normalize(vectors_ND[[4, 5]].mean(0), dim=0)

    row = learner.admit("new", [4, 5])

    assert row == 30
    assert learner.items.row("new") == 30
    assert float(learner.items.unit_vectors()[row] @ beside_D) > 0.98


def test_a_query_does_not_depend_on_the_other_windows_of_its_batch(make_learner):
    learner = make_learner(items=30)
    windows = ring_windows(20)
    vectors_ND = learner.items.unit_vectors()

    together = queries(learner.encoder, vectors_ND, windows)
    alone = torch.cat(
        [
            queries(learner.encoder, vectors_ND, windows.select(np.asarray([place])))
            for place in range(20)
        ]
    )

    assert torch.allclose(together, alone, atol=1e-5)


def test_rows_that_a_version_does_not_know_are_read_as_nothing(make_learner):
    learner = make_learner(items=30)
    few_ND = learner.items.unit_vectors()[:10]

    known = queries(learner.encoder, few_ND, from_lists([[1, 2]], [1]))
    unknown = queries(learner.encoder, few_ND, from_lists([[25, 2]], [1]))

    assert unknown.isfinite().all()
    assert not torch.equal(known, unknown)


def test_the_frozen_encoder_does_not_follow_later_steps(make_learner):
    learner = make_learner(items=30)
    frozen = learner.frozen_encoder()
    before = [parameter.clone() for parameter in frozen.parameters()]

    learner.learn(ring_windows(20))

    assert not frozen.training
    for old, new in zip(before, frozen.parameters(), strict=True):
        assert torch.equal(old, new)
