"""What a demo measures: latency, next-click hit rate, versions; it knows records, no Kafka.

A click that goes on with a session is a hit when its item was in the list that answered the
session's click before.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from cli.hit_rates import HitRates, Judged
from cli.latencies import Latencies
from index.popularity import DecayedCounts

K = 20
_MAX_USERS = 200_000
_POPULAR_EVERY = 100
_SHOWN_CLICKS = 5
_SHOWN_USERS = 3


class Click(NamedTuple):
    """One record of the clicks topic."""

    partition: int
    offset: int
    time_ms: int
    user_id: str
    session_id: str | None
    item_id: str


class Answer(NamedTuple):
    """One record of the recommendations topic; partition and offset are its click's."""

    partition: int
    offset: int
    time_ms: int
    version: str
    items: list[str]


class Glimpse(NamedTuple):
    """A user: the last clicks, oldest first, and the list that answered the last of them."""

    user_id: str
    clicked: tuple[str, ...]
    recommended: list[str]


class _Next(NamedTuple):
    """The click after a turn."""

    position: int
    item_id: str
    best_rate: float


@dataclass(slots=True)
class _Turn:
    """A user's click, its list once it is answered, and the session's next click once it came."""

    click: Click
    popular: frozenset[str]
    trail: tuple[str, ...]
    items: frozenset[str] | None = None
    next: _Next | None = None


@dataclass(slots=True)
class _Popularity:
    """The most clicked items so far: what a system without a model would recommend."""

    counts: DecayedCounts
    row_of: dict[str, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    top: frozenset[str] = frozenset()

    def add(self, item_ids: Iterable[str], times_ms: int | Iterable[int]) -> None:
        rows = np.array([self._row(item_id) for item_id in item_ids], np.int64)
        times = times_ms if isinstance(times_ms, int) else np.array([*times_ms], np.int64)
        self.counts.add(rows, times)

    def refresh(self) -> None:
        rows, _ = self.counts.top(K, 0)  # the order is the same at any later time
        self.top = frozenset(self.names[row] for row in rows.tolist())

    def _row(self, item_id: str) -> int:
        row = self.row_of.setdefault(item_id, len(self.names))
        if row == len(self.names):
            self.names.append(item_id)
        return row


def _unknown(_user_id: str) -> float:
    return math.nan


class Scoreboard:
    """Joins clicks with their answers, in whatever order the two topics are read."""

    def __init__(
        self,
        *,
        half_life_ms: float = 72 * 3_600_000.0,
        best_rate_of: Callable[[str], float] = _unknown,
    ) -> None:
        self._best_rate_of = best_rate_of
        self._popularity = _Popularity(DecayedCounts(half_life_ms))
        self._turns: OrderedDict[str, _Turn] = OrderedDict()
        self._waiting: dict[tuple[int, int], _Turn] = {}
        self._early: dict[tuple[int, int], Answer] = {}
        self._read_to: dict[int, int] = {}
        self._glimpses: deque[Glimpse] = deque(maxlen=_SHOWN_USERS)
        self.clicks = 0
        self.latencies = Latencies()
        self.hit_rates = HitRates()
        self.versions: dict[str, int] = {}

    @property
    def num_waiting(self) -> int:
        """Clicks read that have no answer yet."""
        return len(self._waiting)

    @property
    def glimpses(self) -> list[Glimpse]:
        """The users whose sessions were answered last."""
        return list(self._glimpses)

    def waiting_by_partition(self) -> dict[int, int]:
        """Return how many clicks of each partition have no answer yet."""
        waiting = dict.fromkeys(sorted(self._read_to), 0)
        for partition, _ in self._waiting:
            waiting[partition] += 1
        return waiting

    def add_history(self, item_ids: Iterable[str], times_ms: Iterable[int]) -> None:
        """Let popularity know the clicks before the stream."""
        self._popularity.add(item_ids, times_ms)
        self._popularity.refresh()

    def add_click(self, click: Click) -> None:
        """Enter a click, of each partition in log order."""
        before = self._turns.pop(click.user_id, None)
        best_rate = self._best_rate_of(click.user_id)
        trail: tuple[str, ...] = ()
        if before is not None and before.click.session_id == click.session_id:
            before.next = _Next(self.clicks, click.item_id, best_rate)
            self._judge(before)
            trail = before.trail[1 - _SHOWN_CLICKS :]
        self._open(_Turn(click, self._popularity.top, (*trail, click.item_id)))
        self._popularity.add([click.item_id], click.time_ms)
        self.clicks += 1
        if self.clicks % _POPULAR_EVERY == 0:
            self._popularity.refresh()

    def add_answer(self, answer: Answer) -> None:
        """Enter an answer; one that comes again after a crash is not counted twice."""
        place = answer.partition, answer.offset
        turn = self._waiting.pop(place, None)
        if turn is None:
            if answer.offset >= self._read_to.get(answer.partition, 0):
                self._early[place] = answer
            return
        self.versions[answer.version] = self.versions.get(answer.version, 0) + 1
        self.latencies.add(answer.time_ms - turn.click.time_ms)
        turn.items = frozenset(answer.items)
        if len(turn.trail) == _SHOWN_CLICKS:
            self._glimpses.append(Glimpse(turn.click.user_id, turn.trail, answer.items))
        self._judge(turn)

    def _open(self, turn: _Turn) -> None:
        click = turn.click
        self._turns[click.user_id] = turn
        if len(self._turns) > _MAX_USERS:
            self._turns.popitem(last=False)
        place = click.partition, click.offset
        self._waiting[place] = turn
        self._read_to[click.partition] = click.offset + 1
        early = self._early.pop(place, None)
        if early is not None:
            self.add_answer(early)

    def _judge(self, turn: _Turn) -> None:
        """Score the click after `turn` as soon as both it and the list before it are known."""
        if turn.items is None or turn.next is None:
            return
        position, item_id, best_rate = turn.next
        hit, popular_hit = item_id in turn.items, item_id in turn.popular
        self.hit_rates.add(position, Judged(hit, popular_hit, best_rate))
