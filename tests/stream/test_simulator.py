from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stream.simulator import SimulatedClicks, Simulator, SimulatorSettings
from stream.simulator_truth import Oracle
from stream.simulator_users import SessionPool
from stream.simulator_world import Askers, ItemWorld


def small(**changes: Any) -> SimulatorSettings:
    values = {"users": 60, "items": 120, "topics": 6, "active_sessions": 20, "truth": "list"}
    return SimulatorSettings(**(values | changes))


def probabilities(world: ItemWorld, askers: Askers, row: int) -> np.ndarray:
    """Every slot's probability, straight from the formula of docs/simulator.md."""
    follow, interest = (share[row] for share in world.shares(askers.slot_B))
    chance_L = (1.0 - follow - interest) * world.weight_L / world.weight_L.sum()
    for topic, odds in zip(askers.topics_BM[row], world.interest_odds_M, strict=True):
        weight_L = np.where(world.topic_L == topic, world.weight_L, 0.0)
        chance_L += interest * odds * weight_L / weight_L.sum()
    if askers.slot_B[row] >= 0:
        np.add.at(
            chance_L, world.successors_LS[askers.slot_B[row]], follow * world.successor_odds_S
        )
    return chance_L


def situation(options: SimulatorSettings, seed: int, clicks: int) -> tuple[ItemWorld, Askers]:
    """A world somewhat on in its life and sessions in the middle of it."""
    rng = np.random.default_rng(seed)
    world = ItemWorld(options, rng)
    pool = SessionPool(options, rng)
    pool.forget(world.refresh(clicks))
    for _ in range(3):
        picked_B = pool.pick()
        pool.clicked(picked_B, world.sample(pool.askers(picked_B)))
    return world, pool.askers(np.arange(options.active_sessions))


def columns(clicks: SimulatedClicks) -> tuple[list[str], list[str], list[str], list[list[str]]]:
    return clicks.user_ids, clicks.session_ids, clicks.item_ids, clicks.best_items


@given(parts=st.lists(st.integers(0, 90), min_size=1, max_size=8))
@settings(max_examples=20, deadline=None)
def test_the_same_seed_gives_the_same_stream_however_it_is_taken(parts: list[int]) -> None:
    whole = Simulator(small(), seed=7).take(sum(parts))

    taker = Simulator(small(), seed=7)
    pieces = [taker.take(part) for part in parts]

    for column, expected in enumerate(columns(whole)):
        assert [value for piece in pieces for value in columns(piece)[column]] == expected
    rates = np.concatenate([piece.best_hit_rate_n for piece in pieces])
    np.testing.assert_array_equal(rates, whole.best_hit_rate_n)


def test_another_seed_gives_another_stream() -> None:
    assert Simulator(small(), 1).take(200).item_ids != Simulator(small(), 2).take(200).item_ids


@pytest.mark.parametrize("truth", ["off", "rate"])
def test_asking_for_less_truth_leaves_the_stream_unchanged(truth: str) -> None:
    full = Simulator(small(), seed=3).take(5_000)

    lean = Simulator(small(truth=truth), seed=3).take(5_000)

    assert lean.item_ids == full.item_ids
    assert lean.session_ids == full.session_ids
    assert lean.best_items == []


def test_rates_are_absent_exactly_at_the_first_click_of_a_session() -> None:
    clicks = Simulator(small(), seed=4).take(3_000)

    seen: set[str] = set()
    first = []
    for session in clicks.session_ids:
        first.append(session not in seen)
        seen.add(session)

    assert np.isnan(clicks.best_hit_rate_n).tolist() == first


def test_a_user_has_one_running_session_at_a_time() -> None:
    clicks = Simulator(small(), seed=5).take(5_000)

    numbers: dict[str, list[int]] = {}
    for user, session in zip(clicks.user_ids, clicks.session_ids, strict=True):
        assert session.startswith(f"{user}-s")
        numbers.setdefault(user, []).append(int(session.rpartition("-s")[2]))

    assert all(
        after - before in (0, 1) for each in numbers.values() for before, after in pairwise(each)
    )


def test_mean_session_length_is_as_set() -> None:
    clicks = Simulator(small(users=5_000, session_length=5.0, truth="off"), seed=6).take(40_000)

    assert len(clicks) / len(set(clicks.session_ids)) == pytest.approx(5.0, rel=0.05)


@given(
    seed=st.integers(0, 10_000),
    clicks=st.sampled_from([0, 50_000]),
    successors=st.integers(1, 6),
    interests=st.integers(1, 5),
    shares=st.sampled_from([(0.45, 0.4), (0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (0.2, 0.3)]),
    items=st.sampled_from([61, 120, 360]),
)
@settings(max_examples=60, deadline=None)
def test_the_best_list_is_the_20_largest_of_all_probabilities(
    seed: int, clicks: int, successors: int, interests: int, shares: tuple[float, float], items: int
) -> None:
    options = small(
        items=items,
        successors=successors,
        interests=interests,
        successor_share=shares[0],
        interest_share=shares[1],
    )
    world, askers = situation(options, seed, clicks)
    oracle = Oracle(world)

    rates, lists = oracle.best_rate(askers), oracle.best_slots(askers)

    for row in range(len(rates)):
        chance_L = probabilities(world, askers, row)
        listed = [slot for slot in lists[row].tolist() if slot >= 0]
        expected = np.sort(chance_L)[::-1][:20].sum()
        assert chance_L.sum() == pytest.approx(1.0)
        assert rates[row] == pytest.approx(expected)
        assert chance_L[listed].sum() == pytest.approx(expected)
        assert len(set(listed)) == len(listed)


def test_drawn_clicks_follow_the_stated_probabilities() -> None:
    world, askers = situation(small(), seed=8, clicks=10_000)
    row = int(np.flatnonzero(askers.slot_B >= 0)[0])
    times = 200_000
    same = Askers(
        np.full(times, askers.slot_B[row]), np.broadcast_to(askers.topics_BM[row], (times, 3))
    )

    counts_L = np.bincount(world.sample(same), minlength=len(world.weight_L))

    expected_L = probabilities(world, askers, row) * times
    large_L = expected_L >= 5
    chi_square = ((counts_L - expected_L) ** 2 / np.maximum(expected_L, 1e-9))[large_L].sum()
    freedom = large_L.sum()
    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)
    assert counts_L[expected_L == 0].sum() == 0


@pytest.mark.parametrize(
    "options",
    [
        SimulatorSettings(truth="list"),
        SimulatorSettings(truth="list", new_items_per_1000_clicks=200.0, drift=1.0),
    ],
    ids=["default", "fast-changing"],
)
def test_the_oracle_hits_exactly_as_often_as_the_best_hit_rate_says(
    options: SimulatorSettings,
) -> None:
    clicks = Simulator(options, seed=9).take(40_000)
    scored = ~np.isnan(clicks.best_hit_rate_n)

    hits = np.array(
        [item in best for item, best in zip(clicks.item_ids, clicks.best_items, strict=True)]
    )

    rate = clicks.best_hit_rate_n[scored].astype(float)
    standard_error = np.sqrt((rate * (1 - rate)).sum()) / scored.sum()
    assert abs(hits[scored].mean() - rate.mean()) < 4 * standard_error


def test_the_default_world_leaves_much_to_learn_beyond_popularity() -> None:
    clicks = Simulator(SimulatorSettings(), seed=10).take(30_000)
    items, counts = np.unique(clicks.item_ids, return_counts=True)

    popular = counts[np.argsort(-counts)[:20]].sum() / len(clicks)

    assert 0.6 < np.nanmean(clicks.best_hit_rate_n) < 0.8
    assert popular < 0.2
    assert len(items) > 1_000


def test_new_items_appear_and_old_ones_fade() -> None:
    clicks = Simulator(small(new_items_per_1000_clicks=50.0), seed=11).take(20_000)

    early, late = set(clicks.item_ids[:5_000]), set(clicks.item_ids[-5_000:])

    assert len(set(clicks.item_ids)) > 800
    assert not early & late


def test_without_churn_the_items_stay() -> None:
    clicks = Simulator(small(new_items_per_1000_clicks=0.0), seed=12).take(10_000)

    assert set(clicks.item_ids) <= {f"i{item}" for item in range(120)}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"active_sessions": 60}, "active_sessions must be below users"),
        ({"interests": 6}, "interests must be below topics"),
        ({"successors": 20}, "raise items or lower topics"),
        ({"successor_share": 0.7, "interest_share": 0.4}, "must not exceed 1"),
        ({"speed": 3}, "speed"),
    ],
)
def test_an_impossible_world_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        small(**changes)
