"""Where a demo's clicks come from: a log cut in two, or the simulator."""

import itertools
import math
from collections.abc import Sequence
from threading import Event

import numpy as np
import pytest

from cli.traffic import TrafficError, Truth, cut_of, held_back, recorded, simulated, with_sessions
from stream.click_log import ClickLog
from stream.publisher import PacedClick

HOUR_MS = 3_600_000
NOW_MS = 1_790_000_000_000


def log_of(times_ms: Sequence[int], *, users: int = 7, sessions: bool = True) -> ClickLog:
    user_ids = [f"u{n % users}" for n in range(len(times_ms))]
    return ClickLog(
        user_ids=user_ids,
        session_ids=[f"s-{user}" for user in user_ids] if sessions else None,
        item_ids=[f"i{n % 50}" for n in range(len(times_ms))],
        times_ms=np.array(times_ms, np.int64),
    )


def test_the_history_is_the_first_four_fifths_of_the_time():
    assert cut_of(log_of(range(0, 1_000_000, 1_000))) == 800


def test_a_log_that_grows_leaves_half_of_its_clicks_as_history():
    assert cut_of(log_of([0, 10_000, *range(99_000, 100_000)])) == 501


def test_a_log_of_one_moment_still_leaves_clicks_to_replay():
    assert cut_of(log_of([5] * 200)) == 100


def test_the_history_ends_now_and_keeps_its_rhythm():
    traffic = recorded(log_of(range(0, 1_000_000, 1_000)), 10, None, NOW_MS)

    assert len(traffic.history) == 800
    assert traffic.history.times_ms[-1] == NOW_MS - 1_000
    assert set(np.diff(traffic.history.times_ms).tolist()) == {1_000}


def test_the_rest_is_compressed_into_the_seconds():
    log = log_of(range(0, 1_000_000, 1_000))
    traffic = recorded(log, 10, None, NOW_MS)
    clicks = list(traffic.clicks)

    assert traffic.num_clicks == len(clicks) == 200
    assert [click.item_id for click in clicks] == log.item_ids[800:]
    assert (clicks[0].due_ms, clicks[-1].due_ms) == (0.0, pytest.approx(10_000))


def test_the_rest_takes_longer_than_the_seconds_where_the_rate_would_be_exceeded():
    traffic = recorded(log_of(range(0, 1_000_000, 1_000)), 1, 20, NOW_MS)

    assert list(traffic.clicks)[-1].due_ms == pytest.approx(10_000)


def test_a_log_that_is_too_short_is_refused():
    with pytest.raises(TrafficError, match="10 clicks are too few"):
        recorded(log_of(range(10)), 10, None, NOW_MS)


def test_sessions_that_idle_gaps_end_are_named_before_the_gaps_are_compressed():
    log = with_sessions(log_of([0, 1, HOUR_MS, HOUR_MS + 1], users=2, sessions=False))

    assert log.session_ids == ["s0", "s0", "s1", "s1"]


def test_sessions_of_a_log_that_names_them_are_kept():
    log = log_of(range(5))

    assert with_sessions(log) is log


def test_simulated_clicks_go_on_where_the_history_ends():
    traffic = simulated(seed=3, rate=200, num_history=1_000, now_ms=NOW_MS)
    again = simulated(seed=3, rate=200, num_history=1_500, now_ms=NOW_MS)
    clicks = list(itertools.islice(traffic.clicks, 500))

    assert [click.item_id for click in clicks] == again.history.item_ids[1_000:]
    assert [click.due_ms for click in clicks[:3]] == [0.0, 5.0, 10.0]
    assert traffic.history.times_ms[-1] == NOW_MS - 5


def test_the_truth_of_a_users_clicks_comes_back_in_their_order():
    truth = Truth()
    for user, rate in (("a", 0.1), ("b", 0.2), ("a", 0.3)):
        truth.note(user, rate)

    assert [truth.take("a"), truth.take("a"), truth.take("b")] == [0.1, 0.3, 0.2]
    assert math.isnan(truth.take("a"))
    assert math.isnan(truth.take("stranger"))


def test_clicks_are_held_back_while_too_many_wait():
    stop = Event()
    waiting = iter([0, 11, 11, 0, 99])
    clicks = [PacedClick("u", f"i{n}", None, None) for n in range(3)]

    def num_waiting() -> int:
        number = next(waiting, None)
        if number is None:
            stop.set()
            return 99
        return number

    sent = held_back(clicks, num_waiting, 10, stop)

    assert [click.item_id for click in itertools.islice(sent, 2)] == ["i0", "i1"]
    assert next(waiting) == 99
