"""Fusion in the worker: the bundle's clicks and ranker decide the order of a list."""

import numpy as np
import pytest

from index.candidates import CHANNELS, FEATURES
from index.features import RULES, SESSION
from model.bundle import BundleError, RecentClicks
from model.delta import join
from model.manifest import CHANNELS as NAMED
from worker.fusion import Fusion
from worker.sessions import EMPTY


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


def clicks_after(num):
    """Return `num` more clicks on rows 0, 1 and 2, the first one in the session of the last."""
    before_E = np.full(num, 2, np.int32)
    before_E[0] = 1
    return RecentClicks(np.arange(num, dtype=np.int32) % 3, 20 + np.arange(num), before_E)


def clicks_in(fusion):
    return [column.tolist() for column in fusion.maker.memory.columns()]


def test_a_delta_that_enters_adds_the_missing_clicks_once(make_fused, make_delta):
    bundle = make_fused()
    deltas = [make_delta(bundle, n, clicks=clicks_after(5 * n)) for n in (1, 2, 3)]
    joined = [join(bundle, delta) for delta in deltas]
    base = Fusion.of(bundle)
    one, _passed_over, three = (base.changed(version) for version in joined)

    base.enter()
    assert clicks_in(base) == [column.tolist() for column in bundle.clicks]
    for _ in range(2):
        one.enter()
        assert clicks_in(one) == [column.tolist() for column in joined[0].clicks]
    three.enter()

    alone = Fusion.of(joined[2])
    assert clicks_in(three) == clicks_in(alone)
    held, expected = three.maker.memory.held, alone.maker.memory.held
    assert held.num_added == expected.num_added == 35
    for mine, theirs in zip(held.links, expected.links, strict=True):
        np.testing.assert_array_equal(mine[:35], theirs[:35])
    for mine, theirs in zip(held.facts, expected.facts, strict=True):
        np.testing.assert_array_equal(mine[:200], theirs)


def test_nothing_is_added_before_a_delta_enters(make_fused, make_delta):
    bundle = make_fused()
    base = Fusion.of(bundle)

    base.changed(join(bundle, make_delta(bundle, clicks=clicks_after(5))))

    assert base.maker.memory.num_added == 20


def test_a_new_item_that_was_clicked_is_a_candidate_once_its_delta_has_entered(
    make_fused, make_delta
):
    bundle = make_fused()
    after_zero = RecentClicks(
        np.array([0, 200] * 6, np.int32), 20 + np.arange(12), np.array([0, 1] * 6, np.int32)
    )
    delta = make_delta(bundle, new_ids=["new"], clicks=after_zero)
    fusion = Fusion.of(bundle).changed(join(bundle, delta))
    rings_BR = np.full((2, 20), EMPTY)
    rings_BR[:, 0] = 0, 200
    near = (np.array([[0.9]] * 2, np.float32), np.array([[200]] * 2))

    fusion.enter()
    found = fusion.find(rings_BR, fusion.vectors_ND[[0, 200]], near, session_items=True)

    assert (found.codes_BC == 200).any(axis=1).all()
    assert np.isfinite(found.features_BCF).all()
    rows = fusion.maker.memory.columns().rows_B
    assert rows.max() < len(fusion.vectors_ND) <= fusion.maker.memory.num_items
