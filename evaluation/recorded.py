"""A click log as numbers, cut in time: which clicks teach, which are predicted; knows no model.

Shapes: F clicks in log order, P predictions, I items, S sessions.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.click_log import ClickLog, read_click_log

Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

META: Final = "meta.json"
NO_CLICK: Final = -1
_DAY_MS: Final = 86_400_000
_TEST_SHARE: Final = 0.1


class CutError(ValueError):
    """The log cannot be cut as wanted; the text says what would do."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What of a log is the test period; None follows the log's meta.json, else the last tenth."""

    days: float | None = None
    share: float | None = None
    last_clicks: int | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """Clicks sorted by time; items and sessions are numbers, `previous_F` a session's click before.

    `position_F` counts the session's earlier clicks.
    """

    name: str
    item_ids: list[str]
    item_F: Int64
    session_F: Int64
    time_F: Int64
    previous_F: Int64
    position_F: Int64
    split_ms: int
    exclude_seen: bool

    def __len__(self) -> int:
        """Return the number of clicks."""
        return len(self.item_F)

    @property
    def num_sessions(self) -> int:
        """Sessions of the whole log."""
        return int(self.session_F.max()) + 1

    @property
    def first_test(self) -> int:
        """Position of the first click at or after the split."""
        return self.first_from(self.split_ms)

    @property
    def clicks_before_I(self) -> Int64:  # noqa: N802 - the shape suffix
        """Clicks of each item before the split."""
        return np.bincount(self.item_F[: self.first_test], minlength=len(self.item_ids))

    def first_from(self, time_ms: int) -> int:
        """Return the position of the first click at or after a time."""
        return int(np.searchsorted(self.time_F, time_ms, side="left"))

    def predictions(self, most: int | None = None, *, seed: int = 0) -> Int64:
        """Return the clicks to predict: from the split on, with an earlier one in their session.

        Above `most` a random subset.
        """
        test_F = np.arange(len(self)) >= self.first_test
        points_P = np.flatnonzero(test_F & (self.previous_F != NO_CLICK))
        if most is not None and len(points_P) > most:
            rng = np.random.default_rng(seed)
            points_P = np.sort(rng.choice(points_P, most, replace=False))
        return points_P

    def history(self) -> ClickLog:
        """Return the clicks before the split, each session a user of its own."""
        before = slice(0, self.first_test)
        return ClickLog(
            user_ids=list(map(str, self.session_F[before].tolist())),
            session_ids=None,
            item_ids=[self.item_ids[item] for item in self.item_F[before].tolist()],
            times_ms=self.time_F[before],
        )


class _Meta(msgspec.Struct):
    """What a folder's meta.json may say about its log."""

    name: str | None = None
    test_days: float | None = None
    frac: float | None = None
    test_from_session: int | None = None
    exclude_seen: bool = False


def read_recorded(path: str, cut: Cut, *, gap_ms: int) -> Recorded:
    """Read a log and cut it; raises ClickLogError or CutError with what to do.

    A session is what the log calls one, else a user's clicks without a pause over `gap_ms`.
    """
    log, meta = read_click_log(path), _read_meta(Path(path))
    if cut.last_clicks is not None:
        log = _last(log, cut.last_clicks)
    if not len(log):
        raise CutError(f"{path}: there is no click in it")
    session_F, named_session_F = _sessions(log, gap_ms)
    previous_F, position_F = _within_sessions(session_F)
    item_ids = list(dict.fromkeys(log.item_ids))
    recorded = Recorded(
        name=meta.name or Path(path).resolve().stem,
        item_ids=item_ids,
        item_F=_numbered(log.item_ids, item_ids),
        session_F=session_F,
        time_F=log.times_ms,
        previous_F=previous_F,
        position_F=position_F,
        split_ms=_split_ms(log.times_ms, named_session_F, cut, meta),
        exclude_seen=meta.exclude_seen,
    )
    _require_two_parts(path, recorded)
    return recorded


def _read_meta(path: Path) -> _Meta:
    file = path / META
    if not file.is_file():
        return _Meta()
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Meta)
    except msgspec.DecodeError as error:
        raise CutError(f"{file}: {error}; mend it, or name the log's file alone") from error


def _last(log: ClickLog, num: int) -> ClickLog:
    sessions = log.session_ids
    return replace(
        log,
        user_ids=log.user_ids[-num:],
        session_ids=None if sessions is None else sessions[-num:],
        item_ids=log.item_ids[-num:],
        times_ms=log.times_ms[-num:],
    )


def _sessions(log: ClickLog, gap_ms: int) -> tuple[Int64, Int64 | None]:
    """Number the sessions; second what the log itself calls a session, by rank of its id."""
    user_F = _numbered(log.user_ids, dict.fromkeys(log.user_ids))
    if log.session_ids is None:
        return _by_pause(user_F, log.times_ms, gap_ms), None
    named_F = _numbered(log.session_ids, _sorted_ids(log.session_ids))
    # A session id may count for each user alone.
    pair_F = named_F * (int(user_F.max()) + 1) + user_F
    return np.unique(pair_F, return_inverse=True)[1], named_F


def _by_pause(user_F: Int64, time_F: Int64, gap_ms: int) -> Int64:
    order_F = np.argsort(user_F, kind="stable")  # the log is sorted by time
    other_F = np.append(True, np.diff(user_F[order_F]) != 0)
    pause_F = np.append(True, np.diff(time_F[order_F]) > gap_ms)
    session_F = np.empty(len(user_F), np.int64)
    session_F[order_F] = np.cumsum(other_F | pause_F) - 1
    return session_F


def _within_sessions(session_F: Int64) -> tuple[Int64, Int64]:
    """Return each click's predecessor in its session, and how many it has."""
    order_F = np.argsort(session_F, kind="stable")
    first_F = np.append(True, np.diff(session_F[order_F]) != 0)
    previous_F, position_F = np.empty_like(order_F), np.empty_like(order_F)
    previous_F[order_F] = np.where(first_F, NO_CLICK, np.append(NO_CLICK, order_F[:-1]))
    place_F = np.arange(len(order_F))
    position_F[order_F] = place_F - np.maximum.accumulate(np.where(first_F, place_F, 0))
    return previous_F, position_F


def _sorted_ids(ids: list[str]) -> list[str]:
    """Return the distinct ids in order: as numbers where all of them are whole numbers."""
    distinct = set(ids)
    if all(text.isascii() and text.removeprefix("-").isdigit() for text in distinct):
        return sorted(distinct, key=int)
    return sorted(distinct)


def _numbered(values: list[str], distinct: "list[str] | dict[str, None]") -> Int64:
    number_of = {value: number for number, value in enumerate(distinct)}
    return np.fromiter((number_of[value] for value in values), np.int64, len(values))


def _split_ms(time_F: Int64, named_session_F: Int64 | None, cut: Cut, meta: _Meta) -> int:
    """Return the first time of the test period: as wanted, else as meta.json, else a tenth."""
    days, share, session = cut.days, cut.share, None
    if days is None and share is None:
        days, share, session = meta.test_days, meta.frac, meta.test_from_session
    first_ms, last_ms = int(time_F[0]), int(time_F[-1])
    if session is not None:
        return _start_of(session, time_F, named_session_F)
    if days is not None:
        return last_ms - int(days * _DAY_MS)
    return last_ms - int((share or _TEST_SHARE) * (last_ms - first_ms))


def _start_of(session: int, time_F: Int64, named_session_F: Int64 | None) -> int:
    if named_session_F is None or session > int(named_session_F.max()):
        raise CutError(
            f"{META}: test_from_session is {session}, which the log does not have;"
            " give --days or --frac"
        )
    return int(time_F[named_session_F == session].min())


def _require_two_parts(path: str, recorded: Recorded) -> None:
    if not recorded.first_test:
        raise CutError(
            f"{path}: no click lies before the test period; make it shorter with --days or --frac"
        )
    if not len(recorded.predictions()):
        raise CutError(
            f"{path}: no click of the test period has an earlier one in its session;"
            " make it longer with --days or --frac"
        )
