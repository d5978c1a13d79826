import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.click_log import ClickLog
from trainer.dataset import SessionBuffer
from trainer.history import History, read_history
from trainer.settings import DatasetSettings
from trainer.windows import cut_sessions, gather

GAP_MS = 1_800_000


def log_of(*clicks: tuple[str, str | None, str, int]) -> ClickLog:
    ordered = sorted(clicks, key=lambda click: click[3])
    users, sessions, items, times = (list(column) for column in zip(*ordered, strict=True))
    return ClickLog(users, sessions, items, np.asarray(times, np.int64))


def read(log: ClickLog, *, holdout_share: float = 0.0, max_items: int = 1000) -> History:
    return read_history(log, gap_ms=GAP_MS, holdout_share=holdout_share, max_items=max_items)


def sessions_of(history: History) -> list[list[str]]:
    return [
        [history.item_ids[row] for row in history.rows_F[start:stop]]
        for start, stop in zip(history.start_S, history.stop_S, strict=True)
    ]


def test_sessions_come_in_order_of_their_start():
    history = read(log_of(("b", None, "x", 5), ("a", None, "y", 9), ("b", None, "z", 20)))

    assert sessions_of(history) == [["x", "z"], ["y"]]


def test_items_of_learnt_sessions_are_numbered_before_those_of_held_out_ones():
    clicks = [("a", None, "p", 0), ("b", None, "late", 5), ("a", None, "q", 9)]

    history = read(log_of(*clicks), holdout_share=0.5)

    assert history.item_ids == ["p", "q", "late"]
    assert (history.num_known_items, history.num_known_clicks) == (2, 2)


def test_too_many_items_and_an_empty_log_are_refused():
    with pytest.raises(ValueError, match="max_items allows 1"):
        read(log_of(("a", None, "p", 0), ("a", None, "q", 1)), max_items=1)
    with pytest.raises(ValueError, match="empty"):
        read(ClickLog([], None, [], np.zeros(0, np.int64)))


clicks = st.tuples(
    st.sampled_from("ab"),
    st.sampled_from([None, "s", "t"]),
    st.sampled_from("wxyz"),
    st.integers(0, 4).map(lambda step: step * GAP_MS // 2),
)


@given(st.lists(clicks, min_size=1, max_size=60))
def test_the_whole_log_is_cut_as_the_stream_would_cut_it(rows):
    log = log_of(*rows)
    history = read(log)
    row_of = {item: row for row, item in enumerate(history.item_ids)}
    buffer = SessionBuffer(DatasetSettings(user_clicks_per_hour=1000))
    for user, session, item, time_ms in zip(
        log.user_ids, log.session_ids or [], log.item_ids, log.times_ms.tolist(), strict=True
    ):
        opened = buffer.open(user, session, time_ms)
        assert opened is not None
        buffer.append(user, opened, row_of[item])
    streamed = buffer.take()

    cut = gather(history.rows_F, cut_sessions(history.start_S, history.stop_S))

    assert as_set(cut) == as_set(streamed)


def as_set(windows) -> list[tuple[int, list[int]]]:
    columns = zip(windows.rows_BT, windows.lengths_B, windows.first_B, strict=True)
    return sorted((int(first), rows[:length].tolist()) for rows, length, first in columns)
