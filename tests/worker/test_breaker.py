"""The circuit breaker: when a share of dead letters stops a worker, and what it says then."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from pydantic import ValidationError
from structlog.testing import capture_logs

from stream.monitor import Health
from worker.breaker import CONDITION, BreakerSettings, CircuitBreaker
from worker.metrics import WorkerMetrics


def outcomes(clicks, dead, reason="malformed"):
    return Counter({("recommended", "model"): clicks - dead, ("dead", reason): dead})


@pytest.fixture
def make_breaker():
    def make(**settings):
        gauge = WorkerMetrics(CollectorRegistry()).breaker_open
        return CircuitBreaker(BreakerSettings(**settings), gauge, Health([CONDITION]))

    return make


def test_a_new_breaker_is_closed_and_lets_the_worker_be_ready():
    registry, health = CollectorRegistry(), Health([CONDITION])

    breaker = CircuitBreaker(BreakerSettings(), WorkerMetrics(registry).breaker_open, health)

    assert not breaker.open
    assert health.missing == []
    assert registry.get_sample_value("nextclick_worker_breaker_open") == 0


def test_an_open_breaker_says_so_everywhere_and_what_to_do():
    registry, health = CollectorRegistry(), Health([CONDITION])
    breaker = CircuitBreaker(BreakerSettings(), WorkerMetrics(registry).breaker_open, health)

    with capture_logs() as logs:
        breaker.count(outcomes(1000, 40), now=100.0)
        breaker.count(outcomes(1000, 100, "type"), now=101.0)
        breaker.count(outcomes(1000, 100), now=102.0)

    assert breaker.open
    assert health.missing == ["dead_letters"]
    assert health.alive
    assert registry.get_sample_value("nextclick_worker_breaker_open") == 1
    (line,) = logs
    assert (line["clicks"], line["reasons"]) == (2000, {"type": 100, "malformed": 40})
    for advice in ("nextclick dlq show", "mend the producer", "restart the worker"):
        assert advice in line["event"]


@pytest.mark.parametrize(
    ("clicks", "dead", "opens"),
    [
        (200, 11, True),
        (200, 10, False),  # not more than 5 %
        (199, 199, False),  # too few to judge: a handful of bad clicks at night
        (33, 16, False),  # every kind of bad input once, among 33
        (0, 0, False),
    ],
)
def test_it_opens_above_the_share_of_enough_clicks(make_breaker, clicks, dead, opens):
    breaker = make_breaker()

    breaker.count(outcomes(clicks, dead), now=5.0)

    assert breaker.open is opens


def test_skipped_clicks_are_usable_clicks(make_breaker):
    breaker = make_breaker()

    breaker.count(Counter({("skipped", "ancient"): 1000, ("dead", "id"): 40}), now=5.0)

    assert not breaker.open


def test_what_left_the_window_no_longer_counts(make_breaker):
    breaker = make_breaker(window_seconds=60.0)

    for second in range(0, 600, 61):
        breaker.count(outcomes(199, 100), now=float(second))

    assert not breaker.open


def test_once_open_it_stays_open(make_breaker):
    breaker = make_breaker()
    breaker.count(outcomes(1000, 1000), now=5.0)

    for second in range(6, 600):
        breaker.count(outcomes(1000, 0), now=float(second))

    assert breaker.open


def test_a_share_of_one_never_opens(make_breaker):
    breaker = make_breaker(max_dead_share=1.0)

    breaker.count(outcomes(10_000, 10_000), now=5.0)

    assert not breaker.open


@given(
    batches=st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 300), st.floats(0, 1)), max_size=60
    ),
    max_share=st.sampled_from([0.05, 0.2, 0.5]),
)
def test_it_opens_exactly_when_a_window_of_whole_slices_is_poisoned(batches, max_share):
    gauge = WorkerMetrics(CollectorRegistry()).breaker_open
    settings = BreakerSettings(max_dead_share=max_share, window_seconds=60.0, min_clicks=200)
    breaker = CircuitBreaker(settings, gauge, Health([CONDITION]))
    counted, now, expected = [], 0, False

    for pause, clicks, share in batches:
        now += pause
        dead = int(clicks * share)
        breaker.count(outcomes(clicks, dead), now=float(now))
        counted.append((now, clicks, dead))
        inside = [(c, d) for at, c, d in counted if at > now - 60]
        all_clicks, all_dead = (sum(column) for column in zip(*inside, strict=True))
        expected = expected or (all_clicks >= 200 and all_dead > max_share * all_clicks)

        assert breaker.open is expected
        assert len(breaker._slices) <= 60


@pytest.mark.parametrize(
    "settings",
    [{"max_dead_share": 0}, {"max_dead_share": 1.1}, {"window_seconds": 0}, {"min_clicks": 0},
     {"max_share": 0.1}],
)  # fmt: skip
def test_settings_without_sense_are_refused(settings):
    with pytest.raises(ValidationError):
        BreakerSettings(**settings)
