import numpy as np
import pytest

from evaluation.intervals import session_intervals


def test_the_interval_holds_the_mean_and_is_as_wide_as_independent_sessions_make_it():
    rng = np.random.default_rng(0)
    values = (rng.random((4_000, 1)) < 0.3).astype(float)

    ((low, high),) = session_intervals(np.arange(4_000), values, seed=1)

    half = 1.96 * values.std() / 4_000**0.5
    assert low < values.mean() < high
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_clicks_of_one_session_count_as_one_draw():
    alike = np.repeat((np.random.default_rng(0).random((200, 1)) < 0.3).astype(float), 20, axis=0)
    sessions = np.repeat(np.arange(200), 20)

    ((low, high),) = session_intervals(sessions, alike, seed=0)
    ((low_alone, high_alone),) = session_intervals(np.arange(4_000), alike, seed=0)

    assert (high - low) > 3 * (high_alone - low_alone)


def test_equal_seeds_give_equal_intervals_whatever_the_sessions_are_called():
    values = np.random.default_rng(0).random((50, 2))
    sessions = np.repeat(np.arange(10), 5)

    first = session_intervals(sessions, values, seed=3)

    assert session_intervals(sessions * 1000 + 7, values, seed=3) == first
    assert session_intervals(sessions, values, seed=4) != first
    assert len(first) == 2


def test_without_predictions_there_is_no_interval():
    assert session_intervals(np.zeros(0, np.int64), np.zeros((0, 2)), seed=0) == [(0.0, 0.0)] * 2
