import numpy as np
import pytest
from pyarrow import parquet

from evaluation.recorded import Cut, CutError, read_recorded

DAY = 24 * 60
ROWS = [(0, "a", 0), (0, "b", 1), (1, "a", 2), (1, "c", DAY), (2, "a", DAY + 1), (2, "d", DAY + 2)]


def minutes(recorded):
    return (recorded.split_ms - recorded.time_F[0]) / 60_000


def test_clicks_from_the_split_on_with_an_earlier_one_in_their_session_are_predicted(make_recorded):
    recorded = make_recorded(ROWS, Cut(days=2 / DAY))

    assert recorded.predictions().tolist() == [3, 5]
    assert recorded.first_test == 3
    assert recorded.previous_F.tolist() == [-1, 0, -1, 2, -1, 4]
    assert recorded.position_F.tolist() == [0, 1, 0, 1, 0, 1]
    assert recorded.clicks_before_I.tolist() == [2, 1, 0, 0]


def test_the_split_follows_the_flags_then_meta_then_the_last_tenth(make_recorded):
    assert minutes(make_recorded(ROWS)) == pytest.approx(0.9 * (DAY + 2), abs=0.001)
    assert minutes(make_recorded(ROWS, test_days=0.5)) == DAY / 2 + 2
    assert minutes(make_recorded(ROWS, Cut(days=0.25), test_days=0.5)) == DAY * 0.75 + 2
    assert minutes(make_recorded(ROWS, Cut(share=0.5), test_days=0.5)) == (DAY + 2) / 2
    assert minutes(make_recorded(ROWS, frac=0.25)) == pytest.approx(0.75 * (DAY + 2), abs=0.001)


def test_a_session_may_begin_the_test_period_by_its_place_among_the_sorted_ids(make_recorded):
    by_number = [(session + 9, item, minute) for session, item, minute in ROWS]
    by_text = [(f"s{session}", item, minute) for session, item, minute in ROWS]

    assert minutes(make_recorded(by_number, test_from_session=2)) == DAY + 1
    assert minutes(make_recorded(by_text, test_from_session=2)) == DAY + 1
    with pytest.raises(CutError, match="which the log does not have"):
        make_recorded(ROWS, test_from_session=3)


def test_only_the_last_clicks_are_taken_when_asked(make_recorded):
    recorded = make_recorded(ROWS, Cut(days=2 / DAY, last_clicks=4))

    assert recorded.item_ids == ["a", "c", "d"]
    assert recorded.predictions().tolist() == [1, 3]


def test_without_session_ids_a_pause_ends_a_users_session(make_recorded):
    rows = [("u", "a", 0), ("v", "b", 10), ("u", "c", 29), ("u", "d", 60), ("v", "e", 40)]

    recorded = make_recorded(rows, Cut(share=0.9), head="user_id,item_id")

    assert recorded.item_ids == ["a", "b", "c", "e", "d"]
    assert recorded.position_F.tolist() == [0, 0, 1, 1, 0]


def test_a_session_id_counts_within_its_user(make_recorded):
    rows = [("u", 1, "a", 0), ("v", 1, "b", 1), ("u", 1, "c", 2)]

    recorded = make_recorded(rows, Cut(share=0.5), head="user_id,session_id,item_id")

    assert recorded.num_sessions == 2
    assert recorded.previous_F.tolist() == [-1, -1, 0]


def test_a_random_subset_is_the_same_for_the_same_seed(make_recorded):
    rows = [(session, f"i{step}", 10 * step) for step in range(10) for session in range(10)]
    recorded = make_recorded(rows, Cut(share=0.9))

    some = recorded.predictions(20, seed=1)

    assert len(some) == 20
    assert np.isin(some, recorded.predictions()).all()
    assert (np.diff(some) > 0).all()
    assert (some == recorded.predictions(20, seed=1)).all()
    assert (some != recorded.predictions(20, seed=2)).any()


def test_history_holds_the_clicks_before_the_split_each_session_a_user(make_recorded):
    history = make_recorded(ROWS, Cut(days=2 / DAY)).history()

    assert history.user_ids == ["0", "0", "1"]
    assert history.session_ids is None
    assert history.item_ids == ["a", "b", "a"]


def test_a_log_that_cannot_be_cut_is_refused_with_what_to_do(make_recorded, write_log, tmp_path):
    with pytest.raises(CutError, match="no click lies before the test period; make it shorter"):
        make_recorded(ROWS, Cut(days=5))
    with pytest.raises(CutError, match="has an earlier one in its session; make it longer"):
        make_recorded([(0, "a", 0), (1, "b", 10)], Cut(share=0.5))
    folder = write_log(ROWS, frac="half")
    with pytest.raises(CutError, match=r"meta\.json: Expected `float"):
        read_recorded(folder, Cut(), gap_ms=1)
    empty = tmp_path / "empty.parquet"
    parquet.write_table(parquet.read_table(f"{folder}/events.parquet")[:0], empty)
    with pytest.raises(CutError, match="no click in it"):
        read_recorded(str(empty), Cut(), gap_ms=1)
