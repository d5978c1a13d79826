import numpy as np
import pytest

from evaluation.recorded import Cut
from evaluation.slices import slices

HOUR = 60


def labels(found):
    return {part.label: part.accuracy.num for part in found}


def test_every_prediction_is_in_one_slice_of_each_dimension(make_recorded):
    rng = np.random.default_rng(0)
    rows = [(n % 50, f"i{int(rng.integers(30))}", n) for n in range(600)]
    recorded = make_recorded(rows, Cut(share=0.4))
    points = recorded.predictions()

    found = slices(recorded, points, np.zeros(len(points), np.int64))

    assert list(found) == ["popularity", "item_age", "session_position"]
    for parts in found.values():
        assert sum(part.accuracy.num for part in parts) == len(points)


def test_items_are_sorted_into_tenths_by_their_clicks_before_the_split(make_recorded):
    # i0 has one click before the split, i1 two, … i9 ten; then each is clicked once.
    before = [("old", f"i{n}", 0) for n in range(10) for _ in range(n + 1)]
    after = [("new", f"i{n}", 100 + n) for n in range(10)]
    recorded = make_recorded([*before, *after, ("new", "y", 110)], Cut(share=0.1))
    points = recorded.predictions()

    found = slices(recorded, points, (recorded.item_F[points] == 3).astype(np.int64))

    by_label = {part.label: part.accuracy for part in found["popularity"]}
    assert by_label["no click before"].num == 1
    assert sum(part.num for part in by_label.values()) == len(points) == 10
    assert by_label["10"].num == 1
    assert {label for label, part in by_label.items() if part.recall} == {"4"}


def test_equally_popular_items_share_one_slice(make_recorded):
    rows = [("s", f"i{n}", n) for n in range(8)] + [("s", f"i{n}", 100 + n) for n in range(8)]
    recorded = make_recorded(rows, Cut(share=0.5))
    points = recorded.predictions()

    found = slices(recorded, points, np.zeros(len(points), np.int64))

    assert labels(found["popularity"]) == {"6": 8}


def test_age_counts_from_the_first_click_of_the_item(make_recorded):
    rows = [("s", "a", 0), ("s", "b", 100 * HOUR), ("s", "b", 100.5 * HOUR), ("s", "b", 103 * HOUR),
            ("s", "a", 104 * HOUR), ("s", "a", 24 * 7 * HOUR)]  # fmt: skip
    recorded = make_recorded([(s, i, int(m)) for s, i, m in rows], Cut(share=0.5))

    found = slices(recorded, recorded.predictions(), np.zeros(5, np.int64))

    assert labels(found["item_age"]) == {
        "first click": 1,
        "under 1 hour": 1,
        "under 1 day": 1,
        "under 7 days": 1,
        "7 days and more": 1,
    }


@pytest.mark.parametrize(
    ("clicks", "expected"),
    [(2, {"1": 1}), (6, {"1": 1, "2": 1, "3": 1, "4 to 5": 2}), (25, {"21 and more": 4})],
)
def test_position_is_the_number_of_earlier_clicks(make_recorded, clicks, expected):
    rows = [("a", "x", 0), *(("s", f"i{n}", 1000 + n) for n in range(clicks))]
    recorded = make_recorded(rows, Cut(share=0.5))
    points = recorded.predictions()

    found = slices(recorded, points, np.ones(len(points), np.int64))

    assert labels(found["session_position"]).items() >= expected.items()
    assert all(part.accuracy.mrr == 1 for part in found["session_position"])
