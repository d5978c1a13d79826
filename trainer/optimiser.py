"""Row-wise Adagrad over gathered item rows; knows neither the loss nor the encoder.

Shapes: N rows of the table, U rows of one step, D dimensions.
"""

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
