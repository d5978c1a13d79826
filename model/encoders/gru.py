"""The GRU session encoder: one gated recurrent layer over scaled item vectors; knows no training.

Shapes: B sessions, T items, H state (= D), D item vector. After GRU4Rec (arXiv 1511.06939), with
the newest item added to the query.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, normalize

from model.encoders.session_encoder import EncoderConfig, SessionEncoder


class GRUEncoder(SessionEncoder):
    """`query = normalize(W h + A x)`, where x is the newest item; dropout on inputs only."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config, state_dim=config.dim)
        self.gru = nn.GRU(config.dim, config.dim, batch_first=True)
        self.readout = nn.Linear(config.dim, config.dim, bias=False)
        self.last = self.newest_item_matrix()

    def step(self, state_BS: Tensor, x_BD: Tensor) -> Tensor:
        """Return the states after one more item each."""
        input_BH = x_BD * self.input_scale
        return torch.gru_cell(input_BH, state_BS, *self.gru.all_weights[0])

    def query(self, state_BS: Tensor, x_BD: Tensor) -> Tensor:
        """Return unit queries [B, D]."""
        return normalize(self.readout(state_BS) + self.last(x_BD), dim=-1)

    def forward(self, x_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """Return unit queries [B, T, D]; causal, so padding at the end changes nothing before."""
        x_BTD = dropout(x_BTD, self.config.dropout, self.training)
        hidden_BTH, _ = self.gru(x_BTD * self.input_scale)
        return self.query(hidden_BTH, x_BTD)

    def encode(self, x_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """Return states [B, H] in one pass, taken at each session's last item."""
        x_BTD, lengths_B = self.last_window(x_BTD, lengths_B)
        if x_BTD.shape[1] == 0:
            return self.init_state(len(x_BTD))
        hidden_BTH, _ = self.gru(x_BTD * self.input_scale)
        last_B = (lengths_B - 1).clamp(min=0)
        state_BH = hidden_BTH[torch.arange(len(x_BTD)), last_B]
        return torch.where((lengths_B > 0)[:, None], state_BH, 0.0)
