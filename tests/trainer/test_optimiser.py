import torch

from trainer.optimiser import Adam, RowwiseAdagrad


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


def test_adam_moves_parameters_as_the_reference_does():
    generator = torch.Generator().manual_seed(0)
    ours = [torch.ones(3, 2, requires_grad=True), torch.zeros(4, requires_grad=True)]
    theirs = [parameter.detach().clone().requires_grad_() for parameter in ours]
    adam = Adam(ours, 0.01)
    reference = torch.optim.Adam(theirs, lr=0.01, betas=(0.9, 0.99))

    for _ in range(20):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        adam.step()
        reference.step()

    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_restored_adam_takes_the_same_next_step():
    def next_step(adam: Adam, parameter: torch.Tensor) -> torch.Tensor:
        parameter.grad = torch.full((3,), 0.5)
        adam.step()
        return parameter.detach().clone()

    parameter = torch.ones(3, requires_grad=True)
    adam = Adam([parameter], 0.01)
    next_step(adam, parameter)
    copy = parameter.detach().clone().requires_grad_()
    restored = Adam([copy], 0.01)
    restored.restore(adam.tensors(), adam.num_steps)

    assert torch.equal(next_step(restored, copy), next_step(adam, parameter))
