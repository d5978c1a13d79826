"""Stops a worker before a producer's bug drains the topic into dead letters; knows no consumer.

breaker = CircuitBreaker(settings.breaker, metrics.breaker_open, health)  # once
breaker.count(batch.first_outcomes, time.monotonic())                     # per committed batch
if breaker.open: consumer.pause(*consumer.assignment())                   # before every poll
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from prometheus_client import Gauge
from pydantic import BaseModel, ConfigDict, Field

from stream.monitor import Health

log = structlog.get_logger(__name__)

CONDITION = "dead_letters"
_SLICES = 60


class BreakerSettings(BaseModel):
    """When so many clicks cannot be used that the worker stops instead of going on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_dead_share: float = Field(
        0.05, gt=0, le=1, description="Larger shares of dead letters stop the worker; 1: never"
    )
    window_seconds: float = Field(
        60.0, ge=1, le=3_600, description="How long the share of dead letters is measured"
    )
    min_clicks: int = Field(
        200, ge=1, le=1_000_000, description="Fewer clicks in the window stop nothing"
    )


@dataclass(slots=True)
class _Slice:
    number: int
    clicks: int = 0
    dead: Counter[str] = field(default_factory=Counter)


class CircuitBreaker:
    """Opens when the share of dead letters in the window is too large, and stays open.

    Only a restart closes it: whoever mends the producer decides when to go on. While it is open the
    readiness condition `dead_letters` does not hold; liveness is untouched, since the loop runs.
    The window is kept in 60 slices, so it is up to 1/60 shorter than it says.
    """

    def __init__(self, settings: BreakerSettings, gauge: Gauge, health: Health) -> None:
        self._settings = settings
        self._gauge = gauge
        self._health = health
        self._slices: deque[_Slice] = deque()
        self.open = False
        gauge.set(0)
        health.set(CONDITION, True)

    def count(self, outcomes: Mapping[tuple[str, str], int], now: float) -> None:
        """Add what became of a batch's clicks, as (outcome, reason); `now` is monotonic seconds."""
        current = self._slice(now)
        for (outcome, reason), number in outcomes.items():
            current.clicks += number
            if outcome == "dead":
                current.dead[reason] += number
        if not self.open and self._is_poisoned():
            self._trip()

    def _slice(self, now: float) -> _Slice:
        number = int(now * _SLICES / self._settings.window_seconds)
        while self._slices and self._slices[0].number <= number - _SLICES:
            self._slices.popleft()
        if not self._slices or self._slices[-1].number != number:
            self._slices.append(_Slice(number))
        return self._slices[-1]

    def _is_poisoned(self) -> bool:
        clicks = sum(part.clicks for part in self._slices)
        dead = sum(part.dead.total() for part in self._slices)
        return clicks >= self._settings.min_clicks and dead > self._settings.max_dead_share * clicks

    def _trip(self) -> None:
        self.open = True
        self._gauge.set(1)
        self._health.set(CONDITION, False)
        dead = sum((part.dead for part in self._slices), Counter[str]())
        log.critical(
            "too many dead letters, stopped consuming: look with `nextclick dlq show`, "
            "mend the producer, restart the worker",
            clicks=sum(part.clicks for part in self._slices),
            reasons=dict(dead.most_common()),
        )
