"""Clicks for a demo: some to train the first model on, the rest to publish; knows no Kafka."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from threading import Event
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from stream.click_log import ClickLog
    from stream.publisher import PacedClick
    from stream.simulator import SimulatedClicks, Simulator

_BLOCK = 500
_HISTORY_SHARE = 0.8
_LEAST_HISTORY_SHARE = 0.5
_LEAST_CLICKS = 100
_LOG_RATE = 1_000.0
_IDLE_GAP_MS = 30 * 60_000
_WAIT_SECONDS = 0.05


class TrafficError(ValueError):
    """The clicks are too few, or of a kind that nothing can be learnt from."""


class Truth:
    """The best reachable hit rate of each click on its way through Kafka, by user in order."""

    def __init__(self) -> None:
        self._rates: dict[str, deque[float]] = {}

    def note(self, user_id: str, best_hit_rate: float) -> None:
        """Remember the rate of the user's newest click, before it is published."""
        self._rates.setdefault(user_id, deque()).append(best_hit_rate)

    def take(self, user_id: str) -> float:
        """Return the rate of the user's oldest click not yet taken; NaN for a click of others."""
        rates = self._rates.get(user_id)
        return rates.popleft() if rates else float("nan")


@dataclass(frozen=True)
class Traffic:
    """A history that ends now, and the clicks that follow it; `num_clicks` None: endless."""

    history: ClickLog
    clicks: Iterable[PacedClick]
    num_clicks: int | None
    truth: Truth | None = None


def simulated(seed: int, rate: float, num_history: int, now_ms: int) -> Traffic:
    """Return an endless stream of `rate` clicks a second of the simulator's default world."""
    from stream.simulator import Simulator, SimulatorSettings

    simulator = Simulator(SimulatorSettings(), seed)
    history = _as_log(simulator.take(num_history), now_ms, 1_000 / rate)
    truth = Truth()
    return Traffic(history, _endless(simulator, truth, 1_000 / rate), None, truth)


def _as_log(clicks: SimulatedClicks, now_ms: int, spacing_ms: float) -> ClickLog:
    from stream.click_log import ClickLog

    times_ms = now_ms - (np.arange(len(clicks), 0, -1) * spacing_ms).astype(np.int64)
    return ClickLog(clicks.user_ids, clicks.session_ids, clicks.item_ids, times_ms)


def _endless(simulator: Simulator, truth: Truth, spacing_ms: float) -> Iterator[PacedClick]:
    from stream.publisher import PacedClick

    due_ms = 0.0
    while True:
        block = simulator.take(_BLOCK)
        rates = block.best_hit_rate_n.tolist()
        columns = (block.user_ids, block.item_ids, block.session_ids, rates)
        for user_id, item_id, session_id, rate in zip(*columns, strict=True):
            truth.note(user_id, rate)
            yield PacedClick(user_id, item_id, session_id, due_ms)
            due_ms += spacing_ms


def recorded(log: ClickLog, seconds: float | None, rate: float | None, now_ms: int) -> Traffic:
    """Return the first days of a log as history; the rest, compressed, as clicks.

    They take `seconds`, or longer where `rate` (on average, by default 1000 a second) would be
    exceeded. Raises TrafficError for a log that is too short.
    """
    if len(log) < _LEAST_CLICKS:
        raise TrafficError(f"{len(log)} clicks are too few for a demo: at least {_LEAST_CLICKS}")
    log = with_sessions(log)
    cut = cut_of(log)
    shift_ms = now_ms - int(log.times_ms[cut])
    history = _part(replace(log, times_ms=log.times_ms + shift_ms), slice(0, cut))
    rest = _part(log, slice(cut, None))
    lasting = max(seconds or 0.0, len(rest) / (rate or _LOG_RATE))
    return Traffic(history, _compressed(rest, lasting * 1_000), len(rest))


def cut_of(log: ClickLog) -> int:
    """Return how many clicks are history: four fifths of the time, at least half of the clicks."""
    first_ms, last_ms = int(log.times_ms[0]), int(log.times_ms[-1])
    until_ms = first_ms + _HISTORY_SHARE * (last_ms - first_ms)
    cut = int(np.searchsorted(log.times_ms, until_ms))
    return min(max(cut, int(len(log) * _LEAST_HISTORY_SHARE)), len(log) - 1)


def with_sessions(log: ClickLog) -> ClickLog:
    """Return the log with sessions named: compressed, their idle gaps cannot be seen any more."""
    if log.session_ids is not None:
        return log
    last: dict[str, tuple[int, int]] = {}
    session_ids = []
    for user_id, time_ms in zip(log.user_ids, log.times_ms.tolist(), strict=True):
        before_ms, number = last.get(user_id, (time_ms, 0))
        if time_ms - before_ms > _IDLE_GAP_MS:
            number += 1
        last[user_id] = (time_ms, number)
        session_ids.append(f"s{number}")
    return replace(log, session_ids=session_ids)


def _part(log: ClickLog, part: slice) -> ClickLog:
    from stream.click_log import ClickLog

    session_ids = log.session_ids[part] if log.session_ids is not None else None
    return ClickLog(log.user_ids[part], session_ids, log.item_ids[part], log.times_ms[part])


def _compressed(log: ClickLog, lasting_ms: float) -> Iterator[PacedClick]:
    from stream.publisher import PacedClick

    since_first_n = log.times_ms - log.times_ms[0]
    due_n = since_first_n * (lasting_ms / max(int(since_first_n[-1]), 1))
    sessions: list[str] | list[None] = log.session_ids or [None] * len(log)
    columns = (log.user_ids, log.item_ids, sessions, due_n.tolist())
    return (PacedClick(*click) for click in zip(*columns, strict=True))


def held_back(
    clicks: Iterable[PacedClick], num_waiting: Callable[[], int], limit: int, stop: Event
) -> Iterator[PacedClick]:
    """Yield the clicks, but none while more than `limit` wait for their answers."""
    for click in clicks:
        while num_waiting() > limit and not stop.is_set():
            stop.wait(_WAIT_SECONDS)
        yield click
