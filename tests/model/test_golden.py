from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from model.bundle import Bundle, BundleError, GoldenSession
from model.golden import MAX_SESSIONS, TOP_K, check_golden, golden_sessions

MakeBundle = Callable[..., Bundle]


def with_golden(bundle: Bundle, golden: Sequence[GoldenSession]) -> Bundle:
    return replace(bundle, golden=golden)


def assert_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError) as refused:
        check_golden(bundle)
    assert refused.value.reason == "golden"


def test_a_session_gets_the_exact_best_rows_and_scores(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()

    [session] = golden_sessions(bundle.encoder, bundle.vectors_ND, [[3, 1, 4]])

    x_TBD = torch.from_numpy(bundle.vectors_ND[[3, 1, 4]])[:, None]
    state_BS = bundle.encoder.init_state(1)
    for x_BD in x_TBD:
        state_BS = bundle.encoder.step(state_BS, x_BD)
    scores_N = (bundle.encoder.query(state_BS, x_TBD[-1]).numpy() @ bundle.vectors_ND.T)[0]
    assert session.rows == [3, 1, 4]
    assert session.top_rows == np.argsort(-scores_N, kind="stable")[:TOP_K].tolist()
    np.testing.assert_allclose(session.scores, scores_N[session.top_rows], atol=1e-5)


def test_sessions_are_bounded_in_number_and_length_and_empty_ones_left_out(
    make_bundle: MakeBundle,
) -> None:
    bundle = make_bundle()
    sessions = [[], list(range(29)), *([[1, 2]] * 300)]

    golden = golden_sessions(bundle.encoder, bundle.vectors_ND, sessions)

    assert len(golden) == MAX_SESSIONS
    assert golden[0].rows == list(range(29))[-bundle.encoder.window :]
    check_golden(with_golden(bundle, golden))


def test_a_catalogue_below_twenty_items_is_ranked_whole(make_bundle: MakeBundle) -> None:
    bundle = make_bundle(num_items=28)
    small = make_bundle(num_items=6, golden=())

    golden = golden_sessions(small.encoder, small.vectors_ND, [[1]])

    assert sorted(golden[0].top_rows) == list(range(6))
    check_golden(with_golden(small, golden))
    assert_refused(with_golden(bundle, golden))


def test_a_bundle_without_golden_sessions_passes(make_bundle: MakeBundle) -> None:
    check_golden(with_golden(make_bundle(), ()))
    assert golden_sessions(make_bundle().encoder, np.empty((0, 8), np.float32), [[1]]) == []


def test_an_encoder_that_computes_otherwise_is_refused(make_bundle: MakeBundle) -> None:
    bundle, other = make_bundle(number=1), make_bundle(number=2)

    check_golden(bundle)

    assert_refused(replace(bundle, encoder=other.encoder))


def test_exchanged_vectors_are_refused(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()

    assert_refused(replace(bundle, vectors_ND=np.roll(bundle.vectors_ND, 1, axis=0)))


@pytest.mark.parametrize(
    "change",
    [
        {"rows": []},
        {"rows": [30]},
        {"rows": [-1]},
        {"top_rows": [99] * TOP_K},
        {"top_rows": [0]},
        {"scores": [0.5]},
        {"scores": [float("nan")] * TOP_K},
    ],
)
def test_golden_sessions_that_make_no_sense_are_refused(
    make_bundle: MakeBundle, change: dict[str, list[float]]
) -> None:
    bundle = make_bundle()

    assert_refused(with_golden(bundle, [msgspec.structs.replace(bundle.golden[0], **change)]))
