"""The computation: waves equal single clicks, states the encoder's; repeats apply nothing."""

from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.candidates import FEATURES
from index.item_index import IndexPlan, ItemIndex
from model.bundle import RecentClicks
from model.ranker import shapes
from worker.recommender import Clicks, advance, digest_of, recommend, reencode
from worker.sessions import EMPTY, RING, Sessions
from worker.settings import RankingSettings
from worker.version import serving_version

IDLE_MS = 1_800_000


@pytest.fixture
def sessions():
    made = Sessions(16, max_live=2000)
    for user in range(4):
        made.create(0, f"u{user}")
    return made


def clicks_of(rows, *, first_offset=0, repeat=()):
    """Columns of clicks from (user, code, minute, session hash) rows."""
    users, codes, minutes, hashes = zip(*rows, strict=True) if rows else ((), (), (), ())
    offset_B = np.arange(first_offset, first_offset + len(rows))
    return Clicks(
        slot_B=np.array(users, np.int64),
        code_B=np.array(codes, np.int32),
        time_B=np.array(minutes, np.int64) * 60_000 + 10**12,
        offset_B=offset_B,
        session_hash_B=np.array(hashes, np.uint32),
        repeat_B=np.isin(offset_B, repeat),
        item_ids=[f"item{code}" for code in codes],
    )


def encoded(version, rows):
    items_TD = torch.from_numpy(version.bundle.vectors_ND[list(rows)])
    with torch.inference_mode():
        return version.bundle.encoder.encode(items_TD[None], torch.tensor([len(rows)]))[0].numpy()


CLICK = st.tuples(
    st.integers(0, 3),
    st.integers(-3, 49).filter(lambda code: code != EMPTY),
    st.integers(0, 90),
    st.sampled_from([0, 0, 7, 8]),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(CLICK, max_size=40), cuts=st.sets(st.integers(0, 40)))
def test_any_micro_batches_give_the_states_of_clicks_one_by_one(make_version, rows, cuts):
    version = make_version()
    batched, single = (Sessions(16, max_live=2000) for _ in range(2))
    for made in (batched, single):
        for user in range(4):
            made.create(0, f"u{user}")
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(rows)), len(rows)]

    answers = [
        advance(clicks_of(rows[a:b], first_offset=a), batched, version, IDLE_MS)
        for a, b in pairwise(edges)
    ]
    alone = [
        advance(clicks_of([row], first_offset=n), single, version, IDLE_MS)
        for n, row in enumerate(rows)
    ]

    for column in ("queries_BD", "rings_BR", "n_B", "digest_B", "personal_B"):
        if rows:
            one, other = (
                np.concatenate([getattr(a, column) for a in side]) for side in (answers, alone)
            )
            np.testing.assert_allclose(one, other, atol=1e-5)
    np.testing.assert_allclose(batched.hidden_SH, single.hidden_SH, atol=1e-5)
    for column in ("ring_SR", "length_S", "time_S", "offset_S", "n_S", "digest_S"):
        np.testing.assert_array_equal(getattr(batched, column), getattr(single, column))


def test_a_streamed_state_is_the_encoders_own(make_version, sessions):
    version = make_version()

    advance(clicks_of([(0, code, 0, 0) for code in (3, 5, 8, 13)]), sessions, version, IDLE_MS)

    np.testing.assert_allclose(sessions.hidden_SH[0], encoded(version, [3, 5, 8, 13]), atol=1e-5)


def test_after_a_swap_a_state_is_encoded_again_from_the_known_items(make_version, sessions):
    old, new = make_version(1, seed=1), make_version(2, seed=2)
    items = [3, -2, 5, *range(20, 38), -3, 8]
    advance(clicks_of([(0, code, 0, 0) for code in items]), sessions, old, IDLE_MS)

    num = reencode(sessions, np.array([0, 1]), new)

    known = [code for code in items[-RING:] if code >= 0]
    assert num == 1
    assert len(known) == RING - 1
    np.testing.assert_allclose(sessions.hidden_SH[0], encoded(new, known), atol=1e-5)
    assert not sessions.hidden_SH[1].any()
    assert reencode(sessions, np.array([0, 1]), new) == 0


def test_an_idle_gap_or_another_session_id_starts_anew(make_version, sessions):
    version = make_version()
    rows = [(0, 1, 0, 0), (0, 2, 30, 0), (0, 3, 61, 0), (0, 4, 61, 9), (0, 5, 61, 0), (0, 6, 62, 7)]

    answers = advance(clicks_of(rows), sessions, version, IDLE_MS)

    lengths = (answers.rings_BR != EMPTY).sum(axis=1).tolist()
    assert lengths == [1, 2, 1, 1, 2, 1]
    assert answers.n_B.tolist() == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(sessions.hidden_SH[0], encoded(version, [6]), atol=1e-5)


def test_a_click_out_of_order_is_applied_in_log_order_and_time_stays(make_version, sessions):
    rows = [(0, 1, 60, 0), (0, 2, 10, 0), (0, 3, 61, 0)]

    answers = advance(clicks_of(rows), sessions, make_version(), IDLE_MS)

    assert answers.rings_BR[2, :3].tolist() == [1, 2, 3]


def test_a_repeat_is_answered_and_never_applied(make_version, sessions):
    version = make_version()
    rows = [(0, 1, 0, 0), (0, 2, 0, 0)]
    first = advance(clicks_of(rows), sessions, version, IDLE_MS)
    before = sessions.hidden_SH[0].copy()

    again = advance(clicks_of(rows, repeat=(0, 1)), sessions, version, IDLE_MS)

    np.testing.assert_array_equal(sessions.hidden_SH[0], before)
    assert again.n_B.tolist() == [2, 2]
    assert again.digest_B[1] == first.digest_B[1]
    np.testing.assert_allclose(again.queries_BD[1], first.queries_BD[1], atol=1e-6)


def test_the_digest_chains_offsets_and_items():
    assert digest_of(digest_of(0, 1, "a"), 2, "b") != digest_of(digest_of(0, 2, "a"), 1, "b")
    assert digest_of(0, 1, "a") == digest_of(0, 1, "a")


def lists_of(version, sessions, rows, **ranking):
    return recommend(
        clicks_of(rows),
        sessions,
        version,
        ranking=RankingSettings(**ranking),
        idle_gap_ms=IDLE_MS,
        lap=lambda stage: None,
    ).lists


def test_a_session_without_a_known_item_gets_the_popular_ones(make_version, sessions):
    lists = lists_of(make_version(), sessions, [(0, -2, 0, 0)])

    assert lists.popular_from_B.tolist() == [0]
    assert lists.codes_BK[0].tolist() == list(range(20))


@pytest.mark.parametrize(
    ("exclude", "left_out"), [("none", set()), ("current", {7}), ("session", {3, 7})]
)
def test_what_is_excluded_is_left_out_and_the_list_is_full(
    make_version, sessions, exclude, left_out
):
    version = make_version(ids=tuple(f"i{n}" for n in range(24)))

    lists = lists_of(version, sessions, [(0, 3, 0, 0), (0, 7, 0, 0)], k=22, exclude=exclude)

    codes = lists.codes_BK[1].tolist()
    assert len(set(codes)) == 22
    assert EMPTY not in codes
    assert set(range(24)) - set(codes) >= left_out


def test_an_empty_batch_has_empty_answers(make_version, sessions):
    assert lists_of(make_version(), sessions, []).codes_BK.shape == (0, 20)


def test_diversity_keeps_the_best_item_and_takes_unlike_ones_to_it(make_version, sessions):
    version = make_version()
    rows = [[(user, 3, 0, 0), (user, 7, 0, 0)] for user in range(3)]

    plain = lists_of(version, sessions, rows[0])
    off = lists_of(version, sessions, rows[1], diversity=0.0)
    diverse = lists_of(version, sessions, rows[2], diversity=0.9)

    vectors = (
        version.bundle.vectors_ND[diverse.codes_BK[1]],
        version.bundle.vectors_ND[plain.codes_BK[1]],
    )
    mean_cosines = [(part @ part.T).mean() for part in vectors]
    assert off.codes_BK.tolist() == plain.codes_BK.tolist()
    assert diverse.codes_BK[:, 0].tolist() == plain.codes_BK[:, 0].tolist()
    assert mean_cosines[0] < mean_cosines[1]
    assert len(set(diverse.codes_BK[1].tolist())) == 20


def test_a_version_without_the_channel_rnn_is_never_searched_by_vector(
    make_bundle, sessions, monkeypatch
):
    bundle = make_bundle()
    manifest = msgspec.structs.replace(
        bundle.manifest, features=FEATURES, channels=("rules", "popular")
    )
    ranker = shapes(len(FEATURES))._replace(scale_F=np.ones(len(FEATURES), np.float32))
    clicks = RecentClicks(np.array([3, 9], np.int32), np.arange(2), np.array([0, 1], np.int32))
    bundle = replace(bundle, manifest=manifest, ranker=ranker, clicks=clicks)
    version = serving_version(bundle, ItemIndex.build(bundle.vectors_ND, IndexPlan()), 1, 60)
    monkeypatch.setattr(ItemIndex, "search", None)

    lists = lists_of(version, sessions, [(0, 3, 0, 0)])

    assert set(lists.codes_BK[0, :2].tolist()) == {3, 9}
    assert len(set(lists.codes_BK[0].tolist())) == 20
