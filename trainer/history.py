"""A click log as sessions of item rows; applies the stream's session rule to whole columns.

Shapes: F clicks, S sessions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from index.click_memory import NO_CLICK
from stream.click_log import ClickLog
from trainer.windows import Bool, Int64

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class History:
    """Clicks sorted by session, sessions by start; sessions from `holdout_from` on are held out.

    Items are numbered in order of their first click, those of the learnt sessions first.
    """

    item_ids: list[str]
    rows_F: Int64
    times_F: Int64
    start_S: Int64
    stop_S: Int64
    holdout_from: int
    num_known_items: int

    @property
    def num_known_clicks(self) -> int:
        """Clicks of the sessions that are not held out: they come first."""
        return int(self.stop_S[self.holdout_from - 1])


@dataclass(frozen=True, slots=True)
class LogOrder:
    """Clicks of some sessions in time order: rows, times, and the number of the one before.

    Numbers count from `first`; NO_CLICK before a session's first click.
    """

    rows_B: Int64
    times_B: Int64
    before_B: Int64


def in_log_order(history: History, start: int, stop: int, *, first: int = 0) -> LogOrder:
    """Return the clicks of the sessions `start..stop` in time order."""
    clicks = slice(history.start_S[start], history.stop_S[stop - 1])
    times_B = history.times_F[clicks]
    order_B = np.argsort(times_B, kind="stable")
    number_B = np.empty_like(order_B)
    number_B[order_B] = np.arange(first, first + len(order_B))
    before_B = np.append(NO_CLICK, number_B[:-1])
    before_B[history.start_S[start:stop] - clicks.start] = NO_CLICK
    return LogOrder(history.rows_F[clicks][order_B], times_B[order_B], before_B[order_B])


def read_history(log: ClickLog, *, gap_ms: int, holdout_share: float, max_items: int) -> History:
    """Split a log into sessions and hold out its latest ones (at least one is learnt)."""
    if not len(log.times_ms):
        raise ValueError("the click log is empty")
    order_F, start_S = _sort_by_session(log, gap_ms)
    stop_S = np.append(start_S[1:], len(order_F))
    holdout_from = max(1, len(start_S) - int(len(start_S) * holdout_share))
    item_codes, names = _codes(log.item_ids)
    rows_F, order_of_names = _by_first_use(item_codes[order_F], len(names))
    known_F = rows_F[: stop_S[holdout_from - 1]]
    if len(names) > max_items:
        raise ValueError(f"{len(names)} items in the log, max_items allows {max_items}")
    return History(
        item_ids=[names[code] for code in order_of_names],
        rows_F=rows_F,
        times_F=log.times_ms[order_F],
        start_S=start_S,
        stop_S=stop_S,
        holdout_from=holdout_from,
        num_known_items=int(known_F.max()) + 1,
    )


def _sort_by_session(log: ClickLog, gap_ms: int) -> tuple[Int64, Int64]:
    """Return the order of clicks and where each session starts in it."""
    users_F, _ = _codes(log.user_ids)
    by_user_F = np.argsort(users_F, kind="stable")  # the log is sorted by time
    users_F, times_F = users_F[by_user_F], log.times_ms[by_user_F]
    new_user_F = np.append(True, users_F[1:] != users_F[:-1])
    new_F = new_user_F | np.append(True, np.diff(times_F) > gap_ms)
    if log.session_ids is not None:
        new_F |= _changed(_session_codes(log.session_ids)[by_user_F], new_F)
    start_S = np.flatnonzero(new_F)
    by_start_S = np.argsort(times_F[start_S], kind="stable")
    lengths_S = np.diff(np.append(start_S, len(users_F)))[by_start_S]
    new_start_S = np.cumsum(lengths_S) - lengths_S
    within_F = np.arange(len(users_F)) - np.repeat(new_start_S, lengths_S)
    return by_user_F[np.repeat(start_S[by_start_S], lengths_S) + within_F], new_start_S


def _changed(sessions_F: Int64, new_F: Bool) -> Bool:
    """Mark clicks that name another session than the last one named; -1 names none.

    A session that began without a name is left as soon as a click names one, as in the stream.
    """
    position_F = np.arange(len(sessions_F))
    told_F = np.maximum.accumulate(np.where((sessions_F >= 0) | new_F, position_F, 0))
    current_F = sessions_F[told_F]
    before_F = np.append(-1, current_F[:-1])
    return np.asarray((sessions_F >= 0) & (sessions_F != before_F))


def _session_codes(session_ids: Sequence[str | None]) -> Int64:
    codes_F, names = _codes(session_ids)
    if None in names:
        codes_F[codes_F == names.index(None)] = -1
    return codes_F


def _codes(values: Sequence[T]) -> tuple[Int64, list[T]]:
    """Number distinct values in order of appearance."""
    code_of: dict[T, int] = {}
    codes = [code_of.setdefault(value, len(code_of)) for value in values]
    return np.asarray(codes, np.int64), list(code_of)


def _by_first_use(codes_F: Int64, num_codes: int) -> tuple[Int64, Int64]:
    """Renumber codes by first use; return the new codes and the old code of each."""
    old_N, first_N = np.unique(codes_F, return_index=True)
    order_N = old_N[np.argsort(first_N, kind="stable")]
    new_of_old = np.zeros(num_codes, np.int64)
    new_of_old[order_N] = np.arange(len(order_N))
    return new_of_old[codes_F], order_N
