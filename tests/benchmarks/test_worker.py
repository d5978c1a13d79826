"""What is reported of several rounds under both guarantees."""

from benchmarks.worker import summary


def figures(cpu):
    return {"cpu_us_per_click": cpu, "clicks_per_second": 10_000 / cpu}


def test_one_guarantee_keeps_its_figures_at_the_top():
    rounds = [{"at_least_once": figures(cpu)} for cpu in (90.0, 100.0, 130.0)]

    assert summary(rounds) == figures(100.0)


def test_both_are_compared_within_each_round():
    rounds = [
        {"at_least_once": figures(100.0), "exactly_once": figures(110.0)},
        {"at_least_once": figures(200.0), "exactly_once": figures(240.0)},
        {"at_least_once": figures(150.0), "exactly_once": figures(150.0)},
    ]

    report = summary(rounds)

    assert report["at_least_once"] == figures(150.0)
    assert report["exactly_once"] == figures(150.0)
    assert report["cpu_ratios"] == [1.1, 1.2, 1.0]
    assert report["cpu_ratio"] == 1.1
