"""Figures of a soak: recovery from lag readings, growth from memory samples."""

import numpy as np
import pytest

from benchmarks.chaos.figures import growth, recovery_seconds, summary
from benchmarks.chaos.system import Reading


def readings(*lags, every=0.5):
    return [Reading(i * every, {0: 0}, {0: lag}) for i, lag in enumerate(lags)]


def test_a_fault_that_never_raised_the_lag_took_no_time():
    assert recovery_seconds(readings(5, 5, 8, 5), 0.0, 2.0, max_lag=10) == 0.0


def test_recovery_lasts_until_the_lag_is_normal_for_good():
    series = readings(5, 50, 5, 70, 80, 9, 5)

    assert recovery_seconds(series, 0.5, 3.5, max_lag=10) == pytest.approx(2.0)


def test_lag_that_stays_is_no_recovery():
    assert recovery_seconds(readings(5, 50, 60, 70), 0.0, 2.0, max_lag=10) is None


def test_what_comes_after_the_window_does_not_count():
    series = readings(5, 50, 5, 5, 500, 500)

    assert recovery_seconds(series, 0.0, 1.6, max_lag=10) == pytest.approx(1.0)


def test_a_gap_between_readings_counts_as_lag():
    series = [Reading(at, {0: 0}, {0: 5}) for at in (0.0, 0.5, 6.0, 6.5)]

    assert recovery_seconds(series, 0.0, 7.0, max_lag=10) == pytest.approx(6.0)


def test_readings_that_end_before_the_window_are_no_recovery():
    assert recovery_seconds(readings(5, 5, 5), 0.0, 10.0, max_lag=10) is None


def test_growth_is_that_of_the_longest_life_after_its_warm_up():
    seconds = np.arange(0.0, 1200.0, 5.0)
    sizes = 100_000_000 + 2_000 * seconds + np.where(seconds < 100, 50_000_000, 0)
    sizes[::17] += 30_000_000  # peaks
    long = [(float(at), int(size)) for at, size in zip(seconds, sizes, strict=True)]

    found = growth({"a1": long, "b1": [(0.0, 1), (50.0, 10**9)]})

    assert found is not None
    assert found.process == "a1"
    assert found.minutes == pytest.approx(13.3, abs=0.2)
    assert found.slope_percent_per_hour == pytest.approx(7.1, abs=0.2)


def test_short_lives_have_no_growth():
    assert growth({}) is None
    assert growth({"a1": [(float(at), 100) for at in range(120)]}) is None


def test_a_summary_has_median_and_maximum():
    assert summary([3.0, 1.0, 2.04]) == {"p50": 2.0, "max": 3.0}
