"""Row-wise Adagrad for gathered item rows and Adam for the encoder; knows neither of them.

Shapes: N rows of the table, U rows of one step, D dimensions.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

_EPSILON = 1e-6


class RowwiseAdagrad:
    """Adagrad with one accumulator per row: four bytes a row instead of a second table.

    Only the rows of a step are touched: no sparse autograd and no work over the whole table.
    """

    def __init__(self, learning_rate: float) -> None:
        self._learning_rate = learning_rate

    def step(
        self,
        table_ND: Tensor,
        accumulators_N: Tensor,
        rows_U: Tensor,
        gradient_UD: Tensor,
        *,
        rate: float = 1.0,
    ) -> None:
        """Move `rows_U` (unique) of the table against their gradient, in place."""
        with torch.no_grad():
            sums_U = accumulators_N[rows_U] + gradient_UD.square().mean(1)
            accumulators_N[rows_U] = sums_U
            step_U = self._learning_rate * rate / (sums_U.sqrt() + _EPSILON)
            table_ND.index_add_(0, rows_U, gradient_UD * step_U[:, None], alpha=-1.0)


class Adam:
    """Adam (arXiv 1412.6980) for a few dense parameters.

    Constructing torch's own imports its compiler: seconds of every start, for these twelve lines.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        learning_rate: float,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        epsilon: float = 1e-8,
    ) -> None:
        self._parameters = list(parameters)
        self._learning_rate = learning_rate
        self._betas = betas
        self._epsilon = epsilon
        self._means = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in self._parameters]
        self.num_steps = 0

    def clear(self) -> None:
        """Forget all gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def step(self, *, rate: float = 1.0) -> None:
        """Move every parameter that has a gradient, in place."""
        self.num_steps += 1
        first, second = self._betas
        step_size = self._learning_rate * rate / (1 - first**self.num_steps)
        correction = (1 - second**self.num_steps) ** 0.5
        columns = zip(self._parameters, self._means, self._squares, strict=True)
        with torch.no_grad():
            for parameter, mean, square in columns:
                if parameter.grad is None:
                    continue
                mean.lerp_(parameter.grad, 1 - first)
                square.mul_(second).addcmul_(parameter.grad, parameter.grad, value=1 - second)
                scale = (square.sqrt() / correction).add_(self._epsilon)
                parameter.addcdiv_(mean, scale, value=-step_size)

    def tensors(self) -> dict[str, Tensor]:
        """Return the state for a checkpoint, without `num_steps`."""
        means = {f"mean.{place}": mean.clone() for place, mean in enumerate(self._means)}
        squares = {f"square.{place}": square.clone() for place, square in enumerate(self._squares)}
        return means | squares

    def restore(self, tensors: dict[str, Tensor], num_steps: int) -> None:
        """Take over the state of a checkpoint."""
        for place in range(len(self._parameters)):
            self._means[place].copy_(tensors[f"mean.{place}"])
            self._squares[place].copy_(tensors[f"square.{place}"])
        self.num_steps = num_steps
