"""One trainer that goes on against one that begins each day anew: which clicks count, and how."""

import argparse

import numpy as np
import pytest

from benchmarks.retrain import measure, one_day, table
from cli.settings import Settings
from evaluation.recorded import Cut, read_recorded

DAY_MS = 86_400_000
START_MS = 1_760_000_000_000


@pytest.fixture
def log(tmp_path):
    """Write three days, two busy hours each, of sessions that walk round a ring of thirty items."""
    lines = ["session_id,item_id,timestamp"]
    for number in range(3_600):
        session, step = number % 10 + number // 120 * 100, number % 120 // 10
        time_ms = START_MS + number // 1_200 * DAY_MS + number % 1_200 * 6_000
        lines.append(f"s{session},i{(session * 7 + step) % 30},{time_ms}")
    file = tmp_path / "clicks.csv"
    file.write_text("\n".join(lines))
    return str(file)


def test_a_day_ends_before_the_next_begins_and_all_before_it_teaches(log):
    recorded = read_recorded(log, Cut(days=2), gap_ms=DAY_MS)

    day = one_day(recorded, recorded.split_ms)

    assert day.first_test == recorded.first_test
    assert day.time_F[-1] < recorded.split_ms + DAY_MS <= recorded.time_F[len(day)]
    assert np.array_equal(day.predictions(), recorded.predictions()[: len(day.predictions())])


def test_the_days_after_the_first_are_compared_click_by_click(log):
    settings = Settings.model_validate(
        {
            "trainer": {
                "learning": {"dim": 16},
                "gate": {"min_clicks": 100},
                "publish_seconds": 1_800,
                "delta_seconds": 600,
            }
        }
    )

    report = measure(log, settings, argparse.Namespace(days=2, seed=0))

    (day,) = report["days"]
    assert day["predictions"] == pytest.approx(1_100, abs=20)
    for name in ("recall@20", "mrr@20"):
        low, high = day[name]["change_interval"]
        assert low <= day[name]["change"] <= high
        assert 0 < day[name]["anew"] <= 1
    assert report["versions"] > report["bundles"] > 1
    assert table(report).splitlines()[1] == f"day 2, {day['predictions']:,} predictions"
