"""The minGRU session encoder: a mean of items that gates move on; knows no training.

Shapes: B sessions, T items, H state (= D), D item vector. After arXiv 2410.01201: gate and
candidate depend on the item alone, so both are computed for all items at once, and only a cheap
mean is left to do one by one. A parallel scan would pay for sequences far longer than a session.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, normalize

from model.encoders.session_encoder import EncoderConfig, SessionEncoder


class MinGRUEncoder(SessionEncoder):
    """`h = (1 - z) h + z c` with z and c of the item; `query = normalize(W h + A x)`."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config, state_dim=config.dim)
        self.gate = nn.Linear(config.dim, config.dim)
        self.candidate = nn.Linear(config.dim, config.dim)
        self.readout = nn.Linear(config.dim, config.dim, bias=False)
        self.last = self.newest_item_matrix()

    def step(self, state_BS: Tensor, x_BD: Tensor) -> Tensor:
        """Return the states after one more item each."""
        candidate_BH, gate_BH = self._inputs(x_BD)
        return torch.lerp(state_BS, candidate_BH, gate_BH)

    def query(self, state_BS: Tensor, x_BD: Tensor) -> Tensor:
        """Return unit queries [B, D]."""
        return normalize(self.readout(state_BS) + self.last(x_BD), dim=-1)

    def forward(self, x_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """Return unit queries [B, T, D]; causal, so padding at the end changes nothing before."""
        x_BTD = dropout(x_BTD, self.config.dropout, self.training)
        candidate_BTH, gate_BTH = self._inputs(x_BTD)
        states = [self.init_state(len(x_BTD))]
        for candidate_BH, gate_BH in zip(candidate_BTH.unbind(1), gate_BTH.unbind(1), strict=True):
            states.append(torch.lerp(states[-1], candidate_BH, gate_BH))
        return self.query(torch.stack(states[1:], dim=1), x_BTD)

    def _inputs(self, x_D: Tensor) -> tuple[Tensor, Tensor]:
        input_D = x_D * self.input_scale
        return self.candidate(input_D), torch.sigmoid(self.gate(input_D))
