"""The contract of every encoder family.

Shapes: B sessions, T items, S state, D item vector.
"""

from collections.abc import Callable

import msgspec
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from model.contents import Bundle, decode_files, encode_files, encoder_version
from model.encoders.families import FAMILIES, build_encoder
from model.encoders.session_encoder import EncoderConfig, SessionEncoder

DIM, WINDOW, TOLERANCE = 16, 6, 1e-5
LEAST_COSINE = 0.2


@pytest.fixture(params=sorted(FAMILIES))
def encoder(request: pytest.FixtureRequest) -> SessionEncoder:
    torch.manual_seed(1)
    config = EncoderConfig(family=request.param, dim=DIM, window=WINDOW, dropout=0.5)
    return build_encoder(config).eval().requires_grad_(False)


def items(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, DIM, generator=generator), dim=-1)


def stepped(encoder: SessionEncoder, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
    state_BS = encoder.init_state(len(x_BTD))
    queries = []
    for x_BD in x_BTD.unbind(1):
        state_BS = encoder.step(state_BS, x_BD)
        queries.append(encoder.query(state_BS, x_BD))
    return state_BS, torch.stack(queries, dim=1)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)


def test_the_forward_pass_equals_repeated_steps(encoder: SessionEncoder) -> None:
    x_BTD = items(5, 30)

    queries_BTD = encoder(x_BTD, torch.full((5,), 30))

    assert_close(queries_BTD, stepped(encoder, x_BTD)[1])


@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_micro_batch_size_does_not_matter(encoder: SessionEncoder, size: int) -> None:
    x_BTD = items(64, 20)
    whole_BS, whole_BTD = stepped(encoder, x_BTD)

    parts = [stepped(encoder, part) for part in x_BTD.split(size)]

    assert_close(torch.cat([state for state, _ in parts]), whole_BS)
    assert_close(torch.cat([queries for _, queries in parts]), whole_BTD)


def test_queries_have_unit_length(encoder: SessionEncoder) -> None:
    queries_BTD = encoder(items(4, 9), torch.full((4,), 9))

    assert_close(queries_BTD.norm(dim=-1), torch.ones(4, 9))


def test_padding_changes_neither_queries_nor_states(encoder: SessionEncoder) -> None:
    lengths_B = torch.tensor([0, 1, 4, WINDOW])
    x_BTD = items(4, WINDOW)
    other_BTD = items(4, WINDOW, seed=9)
    padding_BT = torch.arange(WINDOW) >= lengths_B[:, None]
    other_BTD = torch.where(padding_BT[:, :, None], other_BTD, x_BTD)

    queries_BTD, others_BTD = encoder(x_BTD, lengths_B), encoder(other_BTD, lengths_B)

    assert_close(queries_BTD[~padding_BT], others_BTD[~padding_BT])
    assert_close(encoder.encode(x_BTD, lengths_B), encoder.encode(other_BTD, lengths_B))


@pytest.mark.parametrize("length", [0, 1, 3, WINDOW])
def test_encoding_the_ring_gives_the_state_of_a_short_session(
    encoder: SessionEncoder, length: int
) -> None:
    x_BTD = items(3, WINDOW)

    state_BS = encoder.encode(x_BTD, torch.full((3,), length))

    assert_close(state_BS, stepped(encoder, x_BTD[:, :length])[0] if length else state_BS * 0)


def test_encoding_reads_the_last_items_of_a_long_session(encoder: SessionEncoder) -> None:
    x_BTD = items(2, 3 * WINDOW)
    lengths_B = torch.tensor([2 * WINDOW, WINDOW + 1])

    state_BS = encoder.encode(x_BTD, lengths_B)

    for place, length in enumerate(lengths_B.tolist()):
        tail_BTD = x_BTD[place : place + 1, length - WINDOW : length]
        assert_close(state_BS[place], stepped(encoder, tail_BTD)[0][0])


def test_the_vectorised_encoding_equals_the_plain_loop(encoder: SessionEncoder) -> None:
    x_BTD, lengths_B = items(40, 10), torch.arange(40) % 11

    state_BS = encoder.encode(x_BTD, lengths_B)

    assert_close(state_BS, SessionEncoder.encode(encoder, x_BTD, lengths_B))


def test_encoding_no_sessions_and_no_items_gives_empty_states(encoder: SessionEncoder) -> None:
    assert encoder.encode(items(0, 4), torch.zeros(0, dtype=torch.int64)).shape[0] == 0
    assert not encoder.encode(items(2, 0), torch.zeros(2, dtype=torch.int64)).any()


def test_the_state_stays_finite_after_ten_thousand_steps(encoder: SessionEncoder) -> None:
    x_TBD = items(100, 2)
    state_BS = encoder.init_state(2)

    with torch.inference_mode():
        for number in range(10_000):
            state_BS = encoder.step(state_BS, x_TBD[number % 100])

    assert state_BS.isfinite().all()
    assert encoder.query(state_BS, x_TBD[0]).isfinite().all()


def test_a_stored_encoder_comes_back_as_it_was(
    encoder: SessionEncoder, make_bundle: Callable[..., Bundle]
) -> None:
    bundle = make_bundle(encoder=encoder, dim=DIM)
    manifest = msgspec.structs.replace(bundle.manifest, num_items=30, encoder=encoder.config)
    x_BTD, lengths_B = items(3, 5), torch.full((3,), 5)

    again = decode_files(manifest, encode_files(bundle)).encoder

    assert encoder_version(again) == encoder_version(encoder)
    assert torch.equal(again(x_BTD, lengths_B), encoder(x_BTD, lengths_B))


def test_an_item_never_trained_on_needs_nothing_special(encoder: SessionEncoder) -> None:
    newcomer_BTD = items(1, 1, seed=123)

    queries_BTD = encoder(newcomer_BTD, torch.ones(1, dtype=torch.int64))

    assert queries_BTD.isfinite().all()
    assert_close(queries_BTD, stepped(encoder, newcomer_BTD)[1])


def test_an_encoder_that_has_learnt_nothing_looks_near_the_newest_item(
    encoder: SessionEncoder,
) -> None:
    x_BTD = items(100, 10)

    queries_BTD = encoder(x_BTD, torch.full((100,), 10))

    cosine_BT = (queries_BTD * x_BTD).sum(dim=2)
    assert float(cosine_BT.mean()) > LEAST_COSINE


def test_inputs_are_dropped_while_learning_only(encoder: SessionEncoder) -> None:
    x_BTD, lengths_B = items(3, 5), torch.full((3,), 5)
    torch.manual_seed(0)

    learning = encoder.train()(x_BTD, lengths_B)
    serving = encoder.eval()(x_BTD, lengths_B)

    assert not torch.allclose(learning, serving)
    assert torch.equal(serving, encoder(x_BTD, lengths_B))


def test_every_weight_learns(encoder: SessionEncoder) -> None:
    encoder.train().requires_grad_(True)

    (encoder(items(4, 6), torch.full((4,), 6)) @ items(1)[0]).sum().backward()

    assert all(weight.grad is not None and weight.grad.any() for weight in encoder.parameters())


def test_an_unknown_family_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'abacus', known: .*gru"):
        build_encoder(EncoderConfig(family="abacus"))
