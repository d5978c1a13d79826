"""When the guard raises its alarm, and when it does not."""

import numpy as np
import pytest

from stream.announcements import restoring
from stream.messages import Gate, ModelAnnouncement
from worker.guard import Guard, GuardSettings
from worker.hits import Measured

RATE = 0.12
BATCH = 250


def announced(name: str) -> ModelAnnouncement:
    return ModelAnnouncement(
        name="default", version=name, kind="bundle", uri=f"file:///{name}",
        manifest_sha256="0" * 64, bytes=1, created_at=1, encoder_version="e",
        trained_through={}, metrics={}, gate=Gate(verdict="accepted"),
    )  # fmt: skip


A, B, C, D = (announced(name) for name in ("a", "b", "c", "d"))


class Bench:
    """A guard, and lists of which a share are hits."""

    def __init__(self, seed=0, **settings):
        self.guard = Guard(GuardSettings(**settings))
        self.rng = np.random.default_rng(seed)
        self.now = 0.0

    def serve(self, announcement):
        self.maker = self.guard.serve(announcement, self.now)

    def roll_back(self, announcement, version):
        self.serve(restoring(announcement, version, Gate(verdict="rolled_back")))

    def clicks(self, num, rate=RATE):
        """Count clicks on lists of what serves; return the first alarm and after how many."""
        for done in range(BATCH, num + 1, BATCH):
            hits = int(self.rng.binomial(BATCH, rate))
            self.guard.count([Measured(self.maker, BATCH, hits)])
            if (alarm := self.guard.alarm(self.now)) is not None:
                return alarm, done
        return None, num


@pytest.fixture
def bench():
    made = Bench()
    made.serve(A)
    made.clicks(10_000)
    made.serve(B)
    return made


def test_a_version_that_lost_a_third_of_the_hits_is_found_within_3000_clicks(bench):
    alarm, clicks = bench.clicks(20_000, RATE - 0.04)

    assert clicks <= 3_000
    assert (alarm.bad, alarm.good, alarm.frozen) == (B, A, False)
    assert alarm.rate == pytest.approx(0.08, abs=0.015)
    assert alarm.rate_before == pytest.approx(0.12, abs=0.01)
    assert "next-click hit rate" in str(alarm)


def test_forty_equal_versions_raise_no_alarm():
    bench = Bench(seed=2)
    bench.serve(A)
    bench.clicks(10_000)

    alarms = []
    for number in range(40):
        bench.serve(announced(f"v{number:02d}"))
        alarms.append(bench.clicks(10_000)[0])

    assert alarms == [None] * 40


def test_false_alarms_are_rare():
    alarms = 0
    for seed in range(1_000):
        bench = Bench(seed=seed)
        for version, num in ((A, 10_000), (B, 15_000)):
            bench.serve(version)
            alarms += bench.clicks(num)[0] is not None

    assert alarms <= 6


def test_a_fall_that_is_sure_but_small_is_no_alarm(bench):
    assert bench.clicks(15_000, 0.9 * RATE)[0] is None


def test_too_few_clicks_of_either_version_are_no_alarm():
    bench = Bench()
    bench.serve(A)
    bench.clicks(1_250)
    bench.serve(B)
    assert bench.clicks(10_000, 0.0)[0] is None

    bench.serve(C)
    bench.clicks(1_250, 0.5)
    bench.serve(D)

    assert bench.clicks(10_000, 0.0)[0] is None


def test_a_version_that_has_proven_itself_is_not_watched_any_more(bench):
    assert bench.clicks(15_000)[0] is None

    assert bench.clicks(15_000, 0.0)[0] is None


def test_an_alarm_comes_again_while_the_bad_version_serves(bench):
    first, clicks = bench.clicks(10_000, 0.0)
    second, more = bench.clicks(10_000, 0.0)

    assert (clicks, more) == (1_500, 1_500)
    assert (first.bad, second.bad) == (B, B)


def test_a_restored_version_is_not_on_trial_and_measures_the_next(bench):
    bench.clicks(1_500, 0.0)
    bench.roll_back(A, "c")

    assert bench.clicks(10_000, 0.0)[0] is None
    bench.serve(D)

    alarm, _ = bench.clicks(10_000, 0.0)
    assert (alarm.bad, alarm.good) == (D, A)


def test_clicks_on_lists_of_the_version_before_count_for_it(bench):
    bench.guard.count([Measured(1, 100_000, 0), Measured(99, 100_000, 0)])

    assert bench.clicks(15_000)[0] is None


def test_versions_of_one_bundle_count_together(bench):
    bench.clicks(1_250, 0.0)

    bench.serve(announced("b+0001"))
    alarm, clicks = bench.clicks(250, 0.0)

    assert clicks == 250
    assert alarm.bad == B


def test_a_bad_version_is_no_measure_for_the_next(bench):
    bench.clicks(1_500, 0.0)

    bench.serve(C)
    alarm, _ = bench.clicks(10_000, 0.0)

    assert (alarm.bad, alarm.good) == (C, A)


def test_what_a_person_promotes_is_left_alone(bench):
    bench.clicks(1_500, 0.0)
    bench.roll_back(A, "c")
    bench.serve(restoring(B, "d", Gate(verdict="promoted")))

    assert bench.clicks(10_000, 0.0)[0] is None


def test_after_two_rollbacks_within_half_an_hour_a_third_is_frozen(bench):
    frozen = []
    for bad, back in (("b", "c"), ("d", "e"), ("f", "g")):
        bench.serve(announced(bad))
        frozen.append(bench.clicks(1_500, 0.0)[0].frozen)
        bench.now += 60.0
        bench.roll_back(A, back)
        bench.clicks(3_000)
    bench.now += 1_800.0
    bench.serve(announced("h"))

    assert frozen == [False, False, True]
    assert not bench.clicks(1_500, 0.0)[0].frozen


def test_it_can_be_turned_off():
    bench = Bench(enabled=False)
    for version, rate in ((A, RATE), (B, 0.0)):
        bench.serve(version)
        assert bench.clicks(10_000, rate)[0] is None
