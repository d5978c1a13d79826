"""The drift watch: an alarm when hits become fewer, none for chance, none for what gets better."""

from dataclasses import asdict

import numpy as np
import pytest

from trainer.drift import DriftWatch

STEP = 200  # predictions of one learning step


def watched(watch, rng, rate, predictions):
    """Return after how many predictions each alarm came."""
    return [
        number * STEP
        for number in range(1, predictions // STEP + 1)
        if watch.add(rng.random(STEP) < rate)
    ]


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.65, 0.97])
def test_a_steady_rate_gives_no_alarm(rate):
    assert watched(DriftWatch(), np.random.default_rng(1), rate, 1_000_000) == []


@pytest.mark.parametrize(("before", "after"), [(0.65, 0.5), (0.3, 0.15), (0.1, 0.02), (1.0, 0.9)])
def test_a_fall_is_noticed_within_some_thousand_predictions(before, after):
    watch, rng = DriftWatch(), np.random.default_rng(2)

    assert watched(watch, rng, before, 50_000) == []
    assert watched(watch, rng, after, 5_000) != []


def test_the_rate_after_an_alarm_is_the_new_normal():
    watch, rng = DriftWatch(), np.random.default_rng(3)
    watched(watch, rng, 0.6, 50_000)

    assert len(watched(watch, rng, 0.4, 200_000)) == 1


def test_a_rising_rate_and_a_slow_change_give_no_alarm():
    watch, rng = DriftWatch(), np.random.default_rng(4)

    assert watched(watch, rng, 0.4, 50_000) + watched(watch, rng, 0.6, 50_000) == []
    for rate in np.linspace(0.6, 0.4, 500):
        assert watched(watch, rng, rate, 2_000) == []


def test_a_few_predictions_at_a_time_count_like_many_at_once():
    rng = np.random.default_rng(5)
    hits = np.r_[rng.random(128 * 300) < 0.6, rng.random(128 * 20) < 0.3]
    few, many = DriftWatch(), DriftWatch()

    alarms = sum(few.add(part) for part in np.split(hits, len(hits) // 8))

    assert many.add(hits)
    assert alarms == 1
    assert asdict(few) == asdict(many)
