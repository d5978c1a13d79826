import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from trainer.loss import (
    NegativeSampler,
    bpr_max_loss,
    hardest_loss,
    softmax_loss,
    unique_rows,
)


def random_problem(targets: int = 6, candidates: int = 11, dim: int = 4):
    generator = torch.Generator().manual_seed(3)
    queries_MD = normalize(torch.randn(targets, dim, generator=generator), dim=1)
    items_CD = normalize(torch.randn(candidates, dim, generator=generator), dim=1)
    positions_M = torch.randint(candidates, (targets,), generator=generator)
    correction_C = torch.log(torch.rand(candidates, generator=generator))
    return queries_MD.requires_grad_(), items_CD.requires_grad_(), positions_M, correction_C


def by_definition(queries_MD, items_CD, positions_M, correction_C, temperature):
    scores_MC = temperature * queries_MD @ items_CD.T
    is_target_MC = torch.zeros_like(scores_MC, dtype=torch.bool)
    is_target_MC[torch.arange(len(positions_M)), positions_M] = True
    corrected_MC = torch.where(is_target_MC, scores_MC, scores_MC - correction_C)
    return cross_entropy(corrected_MC, positions_M)


def test_loss_and_gradients_equal_those_of_the_definition():
    queries_MD, items_CD, positions_M, correction_C = random_problem()
    expected = by_definition(queries_MD, items_CD, positions_M, correction_C, 12.0)
    expected_grads = torch.autograd.grad(expected, (queries_MD, items_CD))

    loss = softmax_loss(
        queries_MD, items_CD, positions_M, temperature=12.0, log_inclusion_C=correction_C
    )
    grads = torch.autograd.grad(loss, (queries_MD, items_CD))

    assert torch.allclose(loss, expected, atol=1e-5)
    for actual, wanted in zip(grads, expected_grads, strict=True):
        assert torch.allclose(actual, wanted, atol=1e-5)


def test_without_correction_it_is_the_full_softmax():
    queries_MD, items_CD, positions_M, _ = random_problem()

    loss = softmax_loss(queries_MD, items_CD, positions_M, temperature=5.0)

    assert torch.allclose(loss, cross_entropy(5.0 * queries_MD @ items_CD.T, positions_M))


def one_by_one(queries_MD, items_CD, positions_M, loss_of):
    """Return the mean of a loss that is written for one target and its list of negatives."""
    losses = []
    for query_D, position in zip(queries_MD, positions_M.tolist(), strict=True):
        scores_C = [5.0 * (query_D * item_D).sum() for item_D in items_CD]
        positive = scores_C.pop(position)
        losses.append(loss_of(positive, torch.stack(scores_C)))
    return torch.stack(losses).mean()


def bpr_max_by_definition(positive, negatives):
    weights = negatives.exp() / negatives.exp().sum()
    won = (weights * torch.sigmoid(positive - negatives)).sum()
    return -won.log() + 0.3 * (weights * negatives**2).sum()


def hardest_by_definition(positive, negatives):
    hardest = negatives.sort(descending=True).values[:3]
    return -(positive.exp() / (positive.exp() + hardest.exp().sum())).log()


@pytest.mark.parametrize(
    ("loss_of", "definition"),
    [
        (lambda *x: bpr_max_loss(*x, temperature=5.0, regularisation=0.3), bpr_max_by_definition),
        (lambda *x: hardest_loss(*x, temperature=5.0, num=3), hardest_by_definition),
    ],
    ids=["bpr_max", "hardest"],
)
def test_other_losses_and_their_gradients_equal_those_of_the_definition(loss_of, definition):
    queries_MD, items_CD, positions_M, _ = random_problem()
    queries_MD, items_CD = (
        part.detach().double().requires_grad_() for part in (queries_MD, items_CD)
    )
    expected = one_by_one(queries_MD, items_CD, positions_M, definition)
    expected_grads = torch.autograd.grad(expected, (queries_MD, items_CD))

    loss = loss_of(queries_MD, items_CD, positions_M)
    grads = torch.autograd.grad(loss, (queries_MD, items_CD))

    assert torch.allclose(loss, expected)
    for actual, wanted in zip(grads, expected_grads, strict=True):
        assert torch.allclose(actual, wanted)
    assert torch.autograd.gradcheck(lambda q, i: loss_of(q, i, positions_M), (queries_MD, items_CD))


def test_more_hard_negatives_than_there_are_mean_all():
    queries_MD, items_CD, positions_M, _ = random_problem()

    loss = hardest_loss(queries_MD, items_CD, positions_M, temperature=5.0, num=1_000)

    assert torch.allclose(loss, cross_entropy(5.0 * queries_MD @ items_CD.T, positions_M))


def test_negatives_are_drawn_by_the_root_of_their_counts_and_none_is_out_of_reach():
    sampler = NegativeSampler(torch.tensor([0.0, 99.5, 399.5]))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shares = torch.bincount(sampler.draw(200_000), minlength=3) / 200_000

    expected = torch.tensor([0.5, 100.0, 400.0]).sqrt()
    assert torch.allclose(shares, (expected / expected.sum()).float(), atol=0.01)
    assert shares[0] > 0


def test_inclusion_probability_matches_how_often_a_row_is_a_candidate():
    counts_N = torch.tensor([1.0, 5.0, 20.0, 100.0] * 5)
    sampler = NegativeSampler(counts_N)
    shares_N = (counts_N / counts_N.sum()).double()
    times_N = torch.zeros(20)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(4000):
            targets_M = torch.multinomial(shares_N, 4, replacement=True)
            times_N[unique_rows(20, targets_M, sampler.draw(6))] += 1
    predicted_N = sampler.log_inclusion(torch.arange(20), num_targets=4, num_drawn=6).exp()

    assert torch.allclose(times_N / 4000, predicted_N, atol=0.04)


@pytest.mark.parametrize("num_rows", [50, 10_000])
def test_unique_rows_are_sorted_and_complete_in_small_and_large_catalogues(num_rows):
    rows_U = unique_rows(num_rows, torch.tensor([[7, 3], [3, 9]]), torch.tensor([9, 0]))

    assert rows_U.tolist() == [0, 3, 7, 9]
