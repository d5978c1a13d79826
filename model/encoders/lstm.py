"""The LSTM session encoder: one layer over scaled item vectors; knows no training.

Shapes: B sessions, T items, S state (= 2 D: output, then cell), H output (= D), D item vector.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, normalize

from model.encoders.session_encoder import EncoderConfig, SessionEncoder


class LSTMEncoder(SessionEncoder):
    """`query = normalize(W h + A x)`, where x is the newest item; dropout on inputs only."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config, state_dim=2 * config.dim)
        self.lstm = nn.LSTM(config.dim, config.dim, batch_first=True)
        self.readout = nn.Linear(config.dim, config.dim, bias=False)
        self.last = self.newest_item_matrix()

    def step(self, state_BS: Tensor, x_BD: Tensor) -> Tensor:
        """Return the states after one more item each."""
        before = state_BS[:, : self.dim], state_BS[:, self.dim :]
        after = torch.lstm_cell(x_BD * self.input_scale, before, *self.lstm.all_weights[0])
        return torch.cat(after, dim=1)

    def query(self, state_BS: Tensor, x_BD: Tensor) -> Tensor:
        """Return unit queries [B, D]."""
        return self._queries(state_BS[:, : self.dim], x_BD)

    def forward(self, x_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """Return unit queries [B, T, D]; causal, so padding at the end changes nothing before."""
        x_BTD = dropout(x_BTD, self.config.dropout, self.training)
        output_BTH, _ = self.lstm(x_BTD * self.input_scale)
        return self._queries(output_BTH, x_BTD)

    def _queries(self, output_H: Tensor, x_D: Tensor) -> Tensor:
        return normalize(self.readout(output_H) + self.last(x_D), dim=-1)
