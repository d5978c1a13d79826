"""The worker knows nothing of encoder families: every one is stepped, queried and encoded again."""

import dataclasses

import msgspec
import numpy as np
import pytest
import torch

from index.item_index import IndexPlan, ItemIndex
from model.encoders.families import FAMILIES, build_encoder
from model.encoders.session_encoder import EncoderConfig
from worker.recommender import Clicks, advance
from worker.sessions import RING, Sessions
from worker.version import serving_version

ROWS = [3, 8, 5, 8, 13, 21, 34, 2, 1, 1, 40, 7]
UNKNOWN = -2


@pytest.fixture
def family_version(make_bundle):
    """Make a serving version of a family."""

    def make(family, number=1):
        bundle = make_bundle(ids=tuple(f"i{n}" for n in range(50)))
        config = EncoderConfig(family=family, dim=16)
        torch.manual_seed(number)
        encoder = build_encoder(config).eval().requires_grad_(False)
        manifest = msgspec.structs.replace(bundle.manifest, encoder=config)
        bundle = dataclasses.replace(bundle, encoder=encoder, manifest=manifest)
        return serving_version(bundle, ItemIndex.build(bundle.vectors_ND, IndexPlan()), number, 60)

    return make


def clicks_of(codes, *, first_offset=0):
    """Clicks of one user, a minute apart."""
    offset_B = np.arange(first_offset, first_offset + len(codes))
    return Clicks(
        slot_B=np.zeros(len(codes), np.int64),
        code_B=np.array(codes, np.int32),
        time_B=offset_B * 60_000 + 10**12,
        offset_B=offset_B,
        session_hash_B=np.zeros(len(codes), np.uint32),
        repeat_B=np.zeros(len(codes), bool),
        item_ids=[f"i{code}" for code in codes],
    )


def advanced(codes, sessions, version, *, first_offset=0):
    clicks = clicks_of(codes, first_offset=first_offset)
    return advance(clicks, sessions, version, 1_800_000)


def queries_after(rows, version):
    """The encoder's own queries after each of the rows."""
    items_BTD = torch.from_numpy(version.bundle.vectors_ND[rows])[None]
    with torch.inference_mode():
        return version.bundle.encoder(items_BTD, torch.tensor([len(rows)]))[0].numpy()


def one_session(version):
    sessions = Sessions(version.bundle.encoder.state_dim, max_live=2000)
    sessions.create(0, "u0")
    return sessions


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_click_is_answered_from_what_the_encoder_says_of_the_known_items(
    family, family_version
):
    version = family_version(family)

    answers = advanced([*ROWS, UNKNOWN, 9], one_session(version), version)

    expected_TD = queries_after([*ROWS, 9], version)
    known = [place for place in range(len(ROWS) + 2) if place != len(ROWS)]
    np.testing.assert_allclose(answers.queries_BD[known], expected_TD, atol=1e-5)
    np.testing.assert_allclose(answers.queries_BD[len(ROWS)], expected_TD[-2], atol=1e-5)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("before", ["gru", "cnn"])
def test_a_session_goes_on_under_another_family(family, before, family_version):
    old, new = family_version(before, 1), family_version(family, 2)
    sessions = one_session(old)
    advanced(ROWS, sessions, old)

    sessions.resize_state(new.bundle.encoder.state_dim)
    answers = advanced([9, 4], sessions, new, first_offset=len(ROWS))

    assert len(ROWS) + 2 <= RING
    assert answers.num_reencoded == 1
    expected_TD = queries_after([*ROWS, 9, 4], new)[-2:]
    np.testing.assert_allclose(answers.queries_BD, expected_TD, atol=1e-5)
