import torch

from trainer.optimiser import RowwiseAdagrad


def test_a_step_divides_by_the_root_of_the_summed_mean_squares():
    table_ND = torch.ones(3, 2)
    accumulators_N = torch.tensor([0.0, 9.0, 4.0])

    RowwiseAdagrad(0.1).step(
        table_ND, accumulators_N, torch.tensor([1]), torch.tensor([[4.0, 4.0]]), rate=0.5
    )

    assert accumulators_N.tolist() == [0.0, 25.0, 4.0]
    assert torch.allclose(table_ND[1], torch.tensor([0.96, 0.96]), atol=1e-5)
    assert table_ND[[0, 2]].eq(1).all()


def test_the_first_step_has_the_size_of_the_rate():
    table_ND = torch.zeros(1, 4)

    RowwiseAdagrad(0.05).step(table_ND, torch.zeros(1), torch.tensor([0]), torch.full((1, 4), 1e-2))

    assert torch.allclose(table_ND, torch.full((1, 4), -0.05), atol=1e-4)
