"""Fusion in the worker: the bundle's clicks and ranker decide the order of a list."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from index.candidates import CHANNELS, FEATURES
from index.features import RULES, SESSION
from model.bundle import BundleError, RecentClicks
from model.manifest import CHANNELS as NAMED
from model.ranker import shapes
from worker.fusion import Fusion
from worker.sessions import EMPTY


@pytest.fixture
def make_fused(make_bundle):
    """A bundle whose ranker goes by one feature alone; item 0 was always followed by item 1."""

    def make(feature="next_clicks", **manifest):
        rows_E = np.tile(np.array([0, 1], np.int32), 10)
        clicks = RecentClicks(rows_E, np.arange(20), np.tile(np.array([0, 1], np.int32), 10))
        linear_F, skip_X = np.zeros(len(FEATURES), np.float32), np.zeros(len(FEATURES) + 2, "f4")
        linear_F[FEATURES.index(feature)] = 1
        skip_X[FEATURES.index(feature)] = 1
        ranker = shapes(len(FEATURES))._replace(
            scale_F=np.ones(len(FEATURES), np.float32), linear_F=linear_F, skip_X=skip_X
        )
        bundle = make_bundle()
        manifest = msgspec.structs.replace(bundle.manifest, **({"features": FEATURES} | manifest))
        return replace(bundle, clicks=clicks, ranker=ranker, manifest=manifest)

    return make


def order(bundle, ring, *, session_items=True):
    fusion = Fusion.of(bundle)
    assert fusion is not None
    rings_BR = np.full((1, 20), EMPTY)
    rings_BR[0, : len(ring)] = ring
    codes_BC = np.array([[7, 8, EMPTY]])
    return fusion.order(
        rings_BR,
        bundle.vectors_ND[:1],
        (np.array([[0.9, 0.8, 0]], np.float32), codes_BC),
        session_items=session_items,
    )


def test_what_the_ranker_weighs_comes_first(make_fused):
    assert order(make_fused(), [5, 0]).codes_BT[0, 0] == 1
    assert order(make_fused("similarity"), [5, 0]).codes_BT[0, 0] != 1


def test_the_ring_is_read_from_its_newest_end(make_fused):
    assert order(make_fused("is_current"), [5, 0]).codes_BT[0, 0] == 0


def test_the_sessions_items_can_be_left_out(make_fused):
    found = order(make_fused(), [1, 0], session_items=False)

    assert not {0, 1} & set(found.codes_BT[0].tolist())


def test_a_session_of_unknown_items_has_no_candidate(make_fused):
    found = order(make_fused(), [-9])

    assert (found.codes_BT == EMPTY).all()


def test_a_bundle_without_ranker_has_no_fusion(make_bundle):
    assert Fusion.of(make_bundle()) is None


def test_a_ranker_of_other_features_is_refused(make_fused):
    with pytest.raises(BundleError, match="features"):
        Fusion.of(make_fused(features=FEATURES[1:]))


def test_the_channels_of_the_manifest_are_those_that_bring_candidates(make_fused):
    ruled = order(make_fused(channels=("rules",)), [5, 0])
    near = order(make_fused("similarity", channels=("rnn",)), [5, 0])

    assert set(ruled.codes_BT[0].tolist()) == {EMPTY, 0, 1, 5}
    assert set(near.codes_BT[0].tolist()) == {EMPTY, 0, 5, 7, 8}
    assert set(ruled.sources_BT[ruled.codes_BT != EMPTY].tolist()) <= {
        RULES,
        SESSION,
        RULES | SESSION,
    }


def test_manifest_and_index_mean_the_same_channels():
    assert tuple(CHANNELS) == NAMED
