"""The interface of every session encoder: item vectors in, unit queries out; knows no item ids.

Shapes: B sessions, T items of a session (oldest first, padded at the end), S state, D item vector.
"""

from abc import ABC, abstractmethod
from typing import Annotated

import torch
from msgspec import Meta, Struct
from torch import Tensor, nn


class EncoderConfig(Struct, frozen=True, kw_only=True):
    """What is needed to build an encoder before its weights are read; part of the manifest."""

    family: str = "gru"
    dim: Annotated[int, Meta(ge=1, le=1024)] = 128
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.25
    window: Annotated[int, Meta(ge=1, le=256)] = 20


class SessionEncoder(nn.Module, ABC):
    """Turn the items of a session into a query near the next one.

    It sees unit item vectors, never ids, so a new item needs nothing special. The last query of
    `forward`, repeated `step`s and one `encode` are the same function in eval mode.
    """

    def __init__(self, config: EncoderConfig, *, state_dim: int) -> None:
        super().__init__()
        self.config = config
        self.dim = config.dim
        self.window = config.window
        self.state_dim = state_dim
        # Components of a unit vector are about 1/sqrt(D): without this, gates hardly move.
        self.input_scale = 0.5 * config.dim**0.5

    def init_state(self, num_sessions: int) -> Tensor:
        """Return the state [B, S] of sessions without items."""
        return torch.zeros(num_sessions, self.state_dim)

    @abstractmethod
    def step(self, state_BS: Tensor, x_BD: Tensor) -> Tensor:
        """Return the states after one more item each; the hot path, under inference mode."""

    @abstractmethod
    def query(self, state_BS: Tensor, x_BD: Tensor) -> Tensor:
        """Return unit queries [B, D]; `x_BD` is the newest item, already applied to the state."""

    @abstractmethod
    def forward(self, x_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """Return unit queries [B, T, D] after every item, for learning.

        Queries at padded positions mean nothing.
        """

    def encode(self, x_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """Return states [B, S] rebuilt from the last `window` of the first `lengths_B` items.

        A session of no items has the initial state.
        """
        x_BTD, lengths_B = self.last_window(x_BTD, lengths_B)
        state_BS = self.init_state(len(x_BTD))
        for position in range(x_BTD.shape[1]):
            stepped_BS = self.step(state_BS, x_BTD[:, position])
            state_BS = torch.where((position < lengths_B)[:, None], stepped_BS, state_BS)
        return state_BS

    def newest_item_matrix(self) -> nn.Linear:
        """Return the A of a query `W h + A x` that has learnt nothing: half an identity.

        Items of the same sessions start near each other, so the newest one alone is a fair query.
        """
        matrix = nn.Linear(self.dim, self.dim, bias=False)
        with torch.no_grad():
            matrix.weight.copy_(0.5 * torch.eye(self.dim))
        return matrix

    def last_window(self, x_BTD: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return each session's last `window` items, moved to the front, and their number."""
        if x_BTD.shape[1] <= self.window:
            return x_BTD, lengths_B
        start_B = (lengths_B - self.window).clamp(min=0)
        position_BT = start_B[:, None] + torch.arange(self.window)
        index_BTD = position_BT[:, :, None].expand(-1, -1, x_BTD.shape[2])
        return x_BTD.gather(1, index_BTD), lengths_B.clamp(max=self.window)
