"""What only the convolutional family promises: its state is the last items, whatever came before.

Shapes: B sessions, T items, D item vector.
"""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from model.encoders.cnn import CNNEncoder
from model.encoders.session_encoder import EncoderConfig

DIM = 16


def make_encoder(*, window: int = 20) -> CNNEncoder:
    torch.manual_seed(1)
    config = EncoderConfig(family="cnn", dim=DIM, window=window)
    return CNNEncoder(config).eval().requires_grad_(False)


def items(*shape: int) -> Tensor:
    return normalize(torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(0)), dim=-1)


def whole(num: int) -> Tensor:
    return torch.tensor([num])


@pytest.mark.parametrize("window", [1, 2, 7, 8, 20])
def test_a_swap_in_a_long_session_changes_nothing(window: int) -> None:
    encoder, x_BTD = make_encoder(window=window), items(1, 30)
    state_BS = encoder.init_state(1)

    for x_BD in x_BTD.unbind(1):
        state_BS = encoder.step(state_BS, x_BD)

    ring_BTD = x_BTD[:, -window:]
    assert torch.equal(encoder.encode(ring_BTD, whole(window)), state_BS)


@pytest.mark.parametrize(("window", "seen"), [(1, 1), (2, 2), (7, 4), (8, 8), (20, 8)])
def test_a_query_sees_the_last_items_of_the_window_and_no_more(window: int, seen: int) -> None:
    encoder, x_BTD = make_encoder(window=window), items(1, 30)
    other_BTD = x_BTD.clone()
    other_BTD[:, : 30 - seen] = items(2, 30)[1:, : 30 - seen]
    nearer_BTD = x_BTD.clone()
    nearer_BTD[:, 30 - seen] = -x_BTD[:, 30 - seen]

    query_BD, other_BD, nearer_BD = (
        encoder(x, whole(30))[:, -1] for x in (x_BTD, other_BTD, nearer_BTD)
    )

    assert encoder.window == seen
    torch.testing.assert_close(query_BD, other_BD, atol=1e-5, rtol=0)
    assert not torch.allclose(query_BD, nearer_BD, atol=1e-3)
