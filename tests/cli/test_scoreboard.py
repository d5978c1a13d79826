"""What a demo measures, on records made by hand."""

import math
from typing import Any

import pytest

from cli.hit_rates import HitRates, Judged
from cli.latencies import Latencies
from cli.scoreboard import Answer, Click, Scoreboard


def click(offset: int, item: str, *, user: str = "u", session: str | None = "s", **more: Any):
    fields = {"partition": 0, "time_ms": 1_000, **more}
    return Click(offset=offset, user_id=user, session_id=session, item_id=item, **fields)


def answer(offset: int, *items: str, version: str = "v1", **more: Any) -> Answer:
    fields = {"partition": 0, "time_ms": 1_030, **more}
    return Answer(offset=offset, version=version, items=list(items), **fields)


@pytest.fixture
def board() -> Scoreboard:
    return Scoreboard()


def test_a_click_on_an_item_of_the_list_before_is_a_hit(board: Scoreboard):
    board.add_click(click(0, "a"))
    board.add_answer(answer(0, "b", "c"))
    board.add_click(click(1, "c"))
    board.add_answer(answer(1, "d"))
    board.add_click(click(2, "c"))

    assert board.hit_rates.last(1.0).model == 1 / 2


def test_a_list_that_is_read_after_the_next_click_still_counts(board: Scoreboard):
    board.add_click(click(0, "a"))
    board.add_click(click(1, "b"))
    board.add_answer(answer(0, "b"))

    assert board.hit_rates.last(1.0).model == 1.0


def test_an_answer_that_is_read_before_its_click_waits_for_it(board: Scoreboard):
    board.add_answer(answer(0, "b"))
    board.add_click(click(0, "a"))
    board.add_click(click(1, "b"))

    assert board.num_waiting == 1
    assert board.hit_rates.last(1.0).model == 1.0
    assert board.versions == {"v1": 1}


def test_the_first_click_of_a_session_is_not_judged(board: Scoreboard):
    board.add_click(click(0, "a", session="s1"))
    board.add_answer(answer(0, "b"))
    board.add_click(click(1, "b", session="s2"))
    board.add_click(click(2, "b", user="other", session="s1"))

    assert board.hit_rates.last(1.0).model is None


def test_latency_is_from_click_append_to_answer_append(board: Scoreboard):
    for offset in range(100):
        board.add_click(click(offset, "a", user=f"u{offset}", time_ms=5_000))
        board.add_answer(answer(offset, time_ms=5_001 + offset))

    assert board.latencies.percentile(0.5) == 50
    assert board.latencies.percentile(0.99) == 99
    assert board.latencies.percentile(1.0) == 100
    assert board.latencies.recent_percentile(0.5) == 50


def test_a_repeated_answer_is_counted_once(board: Scoreboard):
    board.add_click(click(0, "a"))
    board.add_answer(answer(0, time_ms=1_010))
    board.add_answer(answer(0, time_ms=9_000))

    assert board.versions == {"v1": 1}
    assert board.latencies.percentile(1.0) == 10


def test_popularity_is_judged_on_the_same_clicks_by_what_was_clicked_before(board: Scoreboard):
    board.add_history(["top"] * 3 + [f"i{n}" for n in range(19)] + ["rare"], [1_000] * 23)
    for offset, item in enumerate(["x", "top", "rare"]):
        board.add_click(click(offset, item))
        board.add_answer(answer(offset, "rare"))

    assert board.hit_rates.last(1.0) == (0.5, 0.5, None)


def test_the_best_reachable_rate_is_the_mean_over_the_judged_clicks():
    rates = iter([math.nan, 0.9, 0.3])
    board = Scoreboard(best_rate_of=lambda _user: next(rates))
    for offset in range(3):
        board.add_click(click(offset, "a"))
        board.add_answer(answer(offset, "a"))

    assert board.hit_rates.last(1.0).best_reachable == pytest.approx(0.6)


def test_waiting_clicks_are_told_by_partition(board: Scoreboard):
    board.add_click(click(0, "a", partition=0))
    board.add_click(click(0, "a", partition=3, user="v"))
    board.add_answer(answer(0, partition=0))

    assert board.waiting_by_partition() == {0: 0, 3: 1}


def test_a_glimpse_shows_the_last_clicks_of_a_session_and_its_list(board: Scoreboard):
    for offset, item in enumerate("abcdefg"):
        board.add_click(click(offset, item))
        board.add_answer(answer(offset, f"after-{item}"))

    assert board.glimpses[-1] == ("u", ("c", "d", "e", "f", "g"), ["after-g"])


def judged(hit: bool) -> Judged:
    return Judged(hit, False, math.nan)


@pytest.mark.parametrize("size", [4, 3_000])
def test_the_last_third_is_the_last_third_of_the_stream(size: int):
    rates = HitRates(size)
    for position in range(48):
        rates.add(position, judged(hit=position >= 32))

    assert rates.last(1 / 3).model == pytest.approx(1.0, abs=0.35 if size == 4 else 0.0)
    assert rates.last(1.0).model == pytest.approx(1 / 3)


def test_long_streams_are_summed_in_few_stretches():
    rates = HitRates(size=4)
    for position in range(10_000):
        rates.add(position, judged(hit=position % 2 == 0))

    assert len(rates._stretches) <= 4
    assert rates.last(1.0).model == 0.5


def test_without_answers_there_is_no_percentile():
    assert Latencies().percentile(0.5) is None
    assert Latencies().recent_percentile(0.5) is None


def test_a_late_clock_or_a_long_wait_is_cut(board: Scoreboard):
    latencies = Latencies()
    latencies.add(-5)
    latencies.add(10**9)

    assert (latencies.percentile(0.5), latencies.percentile(1.0)) == (0, 60_000)
