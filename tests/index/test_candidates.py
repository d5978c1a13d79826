"""Candidates: what each channel brings, what is left out, what is said of each."""

import numpy as np
import pytest

from index.candidates import (
    CHANNELS,
    FEATURES,
    MAX_CANDIDATES,
    CandidateMaker,
    Near,
    compile_now,
)
from index.click_memory import NO_CLICK, ClickMemory
from index.describe import describe_all
from index.diversity import diverse_places
from index.features import NEAR, NEIGHBOURS, POPULAR, RULES, SESSION

ITEMS, DIM, SIGMA = 40, 4, 12.0
OF_CHANNEL = {
    "rnn": ("similarity", "place_near", "like_current", "below_best", "not_near"),
    "knn": ("neighbours", "no_neighbours", "place_neighbours"),
    "rules": (
        *("after", "next", "pair", "not_after", "not_next", "not_pair"),
        *("next_clicks", "after_clicks", "pair_clicks", "next_total", "pair_total"),
    ),
    "popular": ("long_count", "short_count", "idle", "age", "current_count"),
}


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((ITEMS, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def memory():
    """Sessions 0 1 2, thrice; then 5 6; item 9 clicked alone."""
    memory = ClickMemory(capacity=100, num_items=ITEMS)
    for items in ([0, 1, 2], [0, 1, 2], [0, 1, 2], [5, 6], [9]):
        first = memory.num_added
        before = [NO_CLICK, *range(first, first + len(items) - 1)]
        memory.append(items, 1_000 * np.arange(first, first + len(items)), before)
    return memory


@pytest.fixture
def find(memory, vectors):
    maker = CandidateMaker(memory)

    def run(*rings, near=(), session_items=True):
        rings_BR = np.full((len(rings), 20), -1)
        for b, ring in enumerate(rings):
            rings_BR[b, : len(ring)] = ring
        codes_BM = np.full((len(rings), 5), -1)
        codes_BM[:, : len(near)] = near
        queries_BD = np.tile(vectors[7], (len(rings), 1))
        cosines_BM = np.linspace(0.9, 0.5, 5, dtype=np.float32)[None].repeat(len(rings), 0)
        near = Near(codes_BM, cosines_BM, queries_BD, vectors, SIGMA)
        return maker.find(rings_BR, near, session_items=session_items)

    return run


def sources(found, b=0):
    num = found.num_B[b]
    return dict(
        zip(found.codes_BC[b, :num].tolist(), found.sources_BC[b, :num].tolist(), strict=True)
    )


def feature(found, name, code, b=0):
    at = found.codes_BC[b].tolist().index(code)
    return float(found.features_BCF[b, at, FEATURES.index(name)])


def test_what_several_channels_bring_is_one_candidate_with_all_sources(find):
    found = sources(find([0], near=[1, 30]))

    assert found[0] == SESSION | NEIGHBOURS | POPULAR
    assert found[1] == NEAR | NEIGHBOURS | RULES | POPULAR
    assert found[30] == NEAR
    assert found[9] == POPULAR
    assert 31 not in found


def test_the_sessions_own_items_are_left_out_where_asked(find):
    found = sources(find([1, 0], near=[0, 30], session_items=False))

    assert not {0, 1} & found.keys()
    assert 2 in found


def test_a_session_without_a_row_has_no_candidate_and_newcomers_only_lengthen_one(find):
    found = find([], [-5], [-5, 0])

    assert found.num_B[:2].tolist() == [0, 0]
    assert (found.codes_BC[:2] == -1).all()
    assert feature(found, "session_length", 0, b=2) == pytest.approx(np.log1p(2))
    assert feature(found, "clicks_ago", 0, b=2) == 1


def test_a_newcomer_near_the_query_is_a_candidate_without_a_past(find):
    found = find([0], near=[-7])

    assert sources(found)[-7] == NEAR
    assert feature(found, "similarity", -7) == pytest.approx(SIGMA * 0.9)
    assert feature(found, "long_count", -7) == 0


def test_features_say_how_an_item_stands_in_session_memory_and_space(find, vectors):
    found = find([1, 0, 1], near=[2, 30])

    assert feature(found, "is_current", 1) == 1
    assert feature(found, "is_previous", 0) == 1
    assert feature(found, "times_in_session", 1) == 2
    assert feature(found, "in_session", 2) == 0
    assert feature(found, "next_clicks", 2) == pytest.approx(np.log1p(3))
    assert feature(found, "pair_clicks", 2) == pytest.approx(np.log1p(3))
    assert feature(found, "similarity", 9) == pytest.approx(
        SIGMA * vectors[7] @ vectors[9], abs=1e-4
    )
    assert feature(found, "like_current", 9) == pytest.approx(
        SIGMA * vectors[1] @ vectors[9], abs=1e-4
    )
    assert feature(found, "place_near", 2) == 0.5
    assert feature(found, "not_near", 9) == 1
    assert feature(found, "idle", 9) == pytest.approx(np.log(0.02), abs=1e-3)


def test_one_session_leaves_nothing_behind_for_the_next(find):
    alone = find([5], near=[1])

    together = find([0, 1, 2], [5], [1, 0], near=[1])

    assert sources(together, 1) == sources(alone)
    np.testing.assert_array_equal(together.features_BCF[1], alone.features_BCF[0])


def test_there_are_never_more_candidates_than_room(memory):
    num = 2_000
    memory.reach(num)
    vectors = np.ones((num, DIM), np.float32) / 2
    near = Near(
        np.arange(400, 800)[None], np.ones((1, 400), np.float32), vectors[:1], vectors, SIGMA
    )

    found = CandidateMaker(memory).find(np.full((1, 20), 3), near, session_items=True)

    assert found.num_B[0] == MAX_CANDIDATES
    assert len(set(found.codes_BC[0].tolist())) == MAX_CANDIDATES


def test_items_that_come_later_find_room(memory, vectors):
    maker = CandidateMaker(memory)
    near = Near(np.full((1, 1), -1), np.zeros((1, 1), np.float32), vectors[:1], vectors, SIGMA)
    maker.find(np.full((1, 20), 0), near, session_items=True)
    memory.reach(ITEMS + 5)
    memory.append([ITEMS + 4], [0], [NO_CLICK])
    more = np.concatenate([vectors, vectors[:5]])

    found = maker.find(np.full((1, 20), 0), near._replace(vectors_ND=more), session_items=True)

    assert ITEMS + 4 in found.codes_BC[0]


def test_compiling_ahead_leaves_nothing_to_compile(memory, vectors):
    compile_now()
    compiled = len(describe_all.signatures)

    near = Near(np.full((1, 1), -1), np.zeros((1, 1), np.float32), vectors[:1], vectors, SIGMA)
    CandidateMaker(memory).find(np.full((1, 20), 0), near, session_items=True)

    assert len(describe_all.signatures) == compiled
    assert len(diverse_places.signatures) == 1


def test_a_channel_that_is_off_brings_nothing_and_says_nothing(memory, vectors):
    near = Near(
        np.array([[30, 2]]), np.array([[0.9, 0.8]], np.float32), vectors[7:8], vectors, SIGMA
    )
    ring = np.full((1, 20), -1)
    ring[0, :3] = 1, 0, 35  # nothing is known of 35
    everything = CandidateMaker(memory).find(ring, near, session_items=True)
    for name, features in OF_CHANNEL.items():
        alone = CandidateMaker(memory, [name]).find(ring, near, session_items=True)
        others = [other for other in CHANNELS if other != name]
        without = CandidateMaker(memory, others).find(ring, near, session_items=True)

        assert set(sources(alone).values()) <= {SESSION, CHANNELS[name], SESSION | CHANNELS[name]}
        assert len(sources(alone)) > 1
        assert not any(bits & CHANNELS[name] for bits in sources(without).values())
        for feature_name in features:
            place = FEATURES.index(feature_name)
            assert everything.features_BCF[:, :, place].any(), feature_name
            assert alone.features_BCF[:, :, place].any(), feature_name
            assert not without.features_BCF[:, :, place].any(), feature_name


def test_every_feature_is_of_one_channel_or_of_the_session():
    of_session = {
        *("is_current", "is_previous", "in_session", "times_in_session", "clicks_ago"),
        *("session_length", "session_items", "in_session_items", "current_length"),
    }

    named = [feature for features in OF_CHANNEL.values() for feature in features]
    assert sorted([*named, *of_session]) == sorted(FEATURES)


def test_without_the_search_by_vector_it_needs_no_result_of_one(memory, vectors):
    nothing = Near(
        np.zeros((1, 0), np.int64), np.zeros((1, 0), np.float32), vectors[:1], vectors, SIGMA
    )
    maker = CandidateMaker(memory, ["knn", "rules"])

    found = maker.find(np.full((1, 20), 0), nothing, session_items=True)

    assert not maker.by_vector
    assert {0, 1, 2} <= sources(found).keys()
