"""The convolutional session encoder: dilated causal convolutions over the last items.

It knows no training. Shapes: B sessions, T items, L items that a query sees, S state (= L D),
D item vector, X positions of a layer, C two item vectors.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, normalize, pad

from model.encoders.session_encoder import EncoderConfig, SessionEncoder

_MAX_LAYERS = 3  # each sees twice as far as the one before: 8 items
_FIRST_READOUT = 0.2


class CNNEncoder(SessionEncoder):
    """`query = normalize(W c + A x)`, where c is what convolutions make of the last 8 items.

    The state is these items as they are, the newest one too, since the next step does not see it
    again: so the worker steps this family like every other, and a state re-encoded from the ring
    after a swap is exactly the one that steps would have made. Missing items are zero; a window
    below 8 sees the largest power of two of items within it.
    """

    def __init__(self, config: EncoderConfig) -> None:
        num_layers = min(_MAX_LAYERS, config.window.bit_length() - 1)
        reach = 2**num_layers
        super().__init__(config, state_dim=reach * config.dim)
        self.window = reach
        # Matrix products: a convolution kernel prepares itself anew for every batch size.
        self.layers = nn.ModuleList(
            nn.Linear(2 * config.dim, config.dim) for _ in range(num_layers)
        )
        self.readout = nn.Linear(config.dim, config.dim, bias=False)
        self.last = self.newest_item_matrix()
        with torch.no_grad():
            # The newest item, of which `last` makes a fair query, must not drown in noise.
            self.readout.weight.mul_(_FIRST_READOUT)

    def step(self, state_BS: Tensor, x_BD: Tensor) -> Tensor:
        """Return the states after one more item each: the oldest leaves."""
        return torch.cat([state_BS[:, self.dim :], x_BD], dim=1)

    def query(self, state_BS: Tensor, x_BD: Tensor) -> Tensor:
        """Return unit queries [B, D]."""
        num, num_items = len(state_BS), self.window
        c_BXD = state_BS.reshape(num, num_items, self.dim) * self.input_scale
        for layer in self.layers:
            # Of every layer only the positions that the last one depends on: neighbours in pairs.
            num_items //= 2
            pairs_BXC = c_BXD.reshape(num, num_items, 2 * self.dim)
            c_BXD = c_BXD[:, 1::2] + torch.relu(layer(pairs_BXC))
        return self._queries(c_BXD[:, 0], x_BD)

    def forward(self, x_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """Return unit queries [B, T, D]; causal, so padding at the end changes nothing before."""
        x_BTD = dropout(x_BTD, self.config.dropout, self.training)
        c_BXD = pad(x_BTD, (0, 0, self.window - 1, 0)) * self.input_scale
        for number, layer in enumerate(self.layers):
            earlier_BXD, later_BXD = c_BXD[:, : -(2**number)], c_BXD[:, 2**number :]
            c_BXD = later_BXD + torch.relu(layer(torch.cat([earlier_BXD, later_BXD], dim=2)))
        return self._queries(c_BXD, x_BTD)

    def _queries(self, c_D: Tensor, x_D: Tensor) -> Tensor:
        return normalize(self.readout(c_D) + self.last(x_D), dim=-1)
