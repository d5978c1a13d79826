"""From clicks in log order to training windows; knows no Kafka and no weights.

One Python step per click is spent here, none in the learning step.
"""

from collections import OrderedDict

import msgspec

from index.click_memory import NO_CLICK
from trainer.settings import DatasetSettings
from trainer.windows import CHUNK, CONTEXT, Windows, from_lists

_HOUR_MS = 3_600_000
_MAX_APPLICANTS = 100_000


class OpenSession(msgspec.Struct, array_like=True):
    """One user's session: its context and the rows that have not been learnt yet.

    `last_click` is the number of its latest click in the memory of clicks.
    """

    session_id: str | None
    last_ms: int
    rows: list[int]
    learnt: int = 0
    hour: int = 0
    clicks_in_hour: int = 0
    last_click: int = NO_CLICK


class BufferState(msgspec.Struct):
    """Everything a session buffer holds, in order."""

    sessions: dict[str, OpenSession]
    waiting: list[str]
    ready: list[list[int]]
    first: list[int]
    targets: int


class SessionBuffer:
    """Open sessions by user, bounded; the user idle for longest is forgotten first."""

    def __init__(self, settings: DatasetSettings) -> None:
        self._gap_ms = int(settings.idle_gap_minutes * 60_000)
        self._max_open = settings.max_open_sessions
        self._hourly = settings.user_clicks_per_hour
        self._sessions: OrderedDict[str, OpenSession] = OrderedDict()
        self._waiting: dict[str, None] = {}  # users with targets, in order of the first one
        self._ready: list[list[int]] = []
        self._first: list[int] = []
        self.num_targets = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, user_id: str, session_id: str | None, time_ms: int) -> OpenSession | None:
        """Return the session that a click belongs to, None where its user clicks too much.

        A session ends after an idle gap, or when the click names another session id.
        """
        session = self._sessions.get(user_id)
        if session is None:
            session = OpenSession(session_id, time_ms, [])
            self._sessions[user_id] = session
            self._forget_oldest()
        elif self._is_over(session, session_id, time_ms):
            self._cut(session)
            self._waiting.pop(user_id, None)
            session.session_id, session.rows, session.learnt = session_id, [], 0
            session.last_click = NO_CLICK
        self._sessions.move_to_end(user_id)
        session.last_ms = max(session.last_ms, time_ms)
        return session if self._within_cap(session, time_ms) else None

    def append(self, user_id: str, session: OpenSession, row: int) -> None:
        """Add a click's row to the session that `open` returned."""
        session.rows.append(row)
        if len(session.rows) > 1:
            self.num_targets += 1
            self._waiting[user_id] = None
        if len(session.rows) - session.learnt == CHUNK:
            self._cut(session)
            self._waiting.pop(user_id, None)

    def take(self) -> Windows:
        """Return every target that has not been taken yet."""
        for user_id in self._waiting:
            self._cut(self._sessions[user_id])
        windows = from_lists(self._ready, self._first)
        self._waiting, self._ready, self._first = {}, [], []
        self.num_targets = 0
        return windows

    def state(self) -> BufferState:
        """Return the content for a checkpoint; it shares the live objects, so encode it at once."""
        return BufferState(
            dict(self._sessions), list(self._waiting), self._ready, self._first, self.num_targets
        )

    def restore(self, state: BufferState) -> None:
        """Take over the content of a checkpoint."""
        self._sessions = OrderedDict(state.sessions)
        self._waiting = dict.fromkeys(state.waiting)
        self._ready, self._first = state.ready, state.first
        self.num_targets = state.targets

    def _is_over(self, session: OpenSession, session_id: str | None, time_ms: int) -> bool:
        if time_ms - session.last_ms > self._gap_ms:
            return True
        return session_id is not None and session_id != session.session_id

    def _within_cap(self, session: OpenSession, time_ms: int) -> bool:
        hour = time_ms // _HOUR_MS
        if hour != session.hour:
            session.hour, session.clicks_in_hour = hour, 0
        session.clicks_in_hour += 1
        return session.clicks_in_hour <= self._hourly

    def _cut(self, session: OpenSession) -> None:
        """Turn the rows not yet learnt into a window and keep their end as context."""
        first = max(1, session.learnt)
        if len(session.rows) > first:
            self._ready.append(session.rows)
            self._first.append(first)
            session.rows = session.rows[-CONTEXT:]
            session.learnt = len(session.rows)

    def _forget_oldest(self) -> None:
        while len(self._sessions) > self._max_open:
            user_id, session = self._sessions.popitem(last=False)
            self._cut(session)
            self._waiting.pop(user_id, None)


class Admission:
    """Decides when an item without a row gets one: after enough clicks, while there is room."""

    def __init__(self, settings: DatasetSettings) -> None:
        self._required = settings.admission_clicks
        self._max_items = settings.max_items
        self._applicants: OrderedDict[str, int] = OrderedDict()

    def admits(self, item_id: str, num_items: int) -> bool:
        """Count a click on an unknown item and say whether it may have a row now."""
        if num_items >= self._max_items:
            return False
        clicks = self._applicants.pop(item_id, 0) + 1
        if clicks >= self._required:
            return True
        self._applicants[item_id] = clicks
        if len(self._applicants) > _MAX_APPLICANTS:
            self._applicants.popitem(last=False)
        return False

    def state(self) -> dict[str, int]:
        """Return the clicks of items without a row, in order."""
        return dict(self._applicants)

    def restore(self, state: dict[str, int]) -> None:
        """Take over the counts of a checkpoint."""
        self._applicants = OrderedDict(state)
