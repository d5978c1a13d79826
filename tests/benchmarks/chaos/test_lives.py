"""Plans of the kill benchmark, and what its recovery times are."""

from collections import Counter

from benchmarks.chaos import crashing
from benchmarks.chaos.lives import make_plan, recoveries
from benchmarks.chaos.supervisor import Exit
from benchmarks.chaos.system import Reading

SEEDS = range(1, 51)


def points(plan):
    return [d.fail_point for deaths in plan.deaths.values() for d in deaths if d.fail_point]


def test_a_seed_always_gives_the_same_plan():
    assert [make_plan(seed) for seed in SEEDS] == [make_plan(seed) for seed in SEEDS]


def test_fifty_seeds_pass_every_fail_point_several_times():
    counts = Counter(p.partition(":")[0] for seed in SEEDS for p in points(make_plan(seed)))

    assert set(counts) == set(crashing.NAMES)
    assert min(counts.values()) >= 5


def test_a_plan_holds_two_different_fail_points_and_a_random_kill():
    for seed in SEEDS:
        deaths = [d for each in make_plan(seed).deaths.values() for d in each]

        assert len(deaths) == 3
        assert len({d.fail_point.partition(":")[0] for d in deaths}) == 3


def test_some_seeds_have_two_slots_and_some_static_members():
    plans = [make_plan(seed) for seed in SEEDS]

    assert 10 < sum(len(plan.deaths) == 2 for plan in plans) < 40
    assert 5 < sum(plan.static_members for plan in plans) < 30


def test_recovery_ends_when_every_partition_went_on_or_had_nothing_to_do():
    ends = {0: 100, 1: 40}
    series = [
        Reading(1.0, {0: 50, 1: 40}, ends),
        Reading(2.5, {0: 50, 1: 40}, ends),
        Reading(3.0, {0: 60, 1: 40}, ends),
    ]

    assert list(recoveries([Exit("a", -9, 2.0, 1.0, None)], series)) == [1.0]


def test_of_deaths_before_a_recovery_only_the_last_counts():
    series = [Reading(at, {0: int(at > 5)}, {0: 9}) for at in (1.0, 3.0, 4.5, 6.0)]
    deaths = [Exit("a", -9, at, 1.0, None) for at in (2.0, 4.0)]

    assert list(recoveries(deaths, series)) == [2.0]
