"""The MLP session encoder: a decayed sum of items beside the newest one; knows no training.

Shapes: B sessions, T items, S state (= D, the sum), H hidden (= D), D item vector. The cheapest
family: a step is one multiplication and one addition.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, normalize

from model.encoders.session_encoder import EncoderConfig, SessionEncoder

_FIRST_DECAY = 0.8
_FIRST_READOUT = 0.4


class MLPEncoder(SessionEncoder):
    """`query = normalize(W relu(U [s, x]) + A x)`: s the decayed sum up to the newest item x."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config, state_dim=config.dim)
        self.decay_logit = nn.Parameter(torch.tensor([math.log(_FIRST_DECAY / (1 - _FIRST_DECAY))]))
        self.hidden = nn.Linear(2 * config.dim, config.dim)
        self.readout = nn.Linear(config.dim, config.dim, bias=False)
        self.last = self.newest_item_matrix()
        with torch.no_grad():
            # The newest item, of which `last` makes a fair query, must not drown in noise.
            self.readout.weight.mul_(_FIRST_READOUT)

    def step(self, state_BS: Tensor, x_BD: Tensor) -> Tensor:
        """Return the states after one more item each."""
        return state_BS * torch.sigmoid(self.decay_logit) + x_BD

    def query(self, state_BS: Tensor, x_BD: Tensor) -> Tensor:
        """Return unit queries [B, D]."""
        input_BX = torch.cat([state_BS, x_BD], dim=-1) * self.input_scale
        return normalize(self.readout(torch.relu(self.hidden(input_BX))) + self.last(x_BD), dim=-1)

    def forward(self, x_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """Return unit queries [B, T, D]; causal, so padding at the end changes nothing before."""
        x_BTD = dropout(x_BTD, self.config.dropout, self.training)
        place_T = torch.arange(x_BTD.shape[1])
        age_TT = place_T[:, None] - place_T
        weight_TT = (torch.sigmoid(self.decay_logit) ** age_TT.clamp(min=0)).tril()
        return self.query(weight_TT @ x_BTD, x_BTD)
