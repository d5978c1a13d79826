"""Is the version that serves worse than the one before it? Live hits in, an alarm out.

Pure: it knows no lists, no Kafka and no clock. Versions of one bundle, its deltas, count together.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from model.manifest import bundle_of
from stream.announcements import ROLLED_BACK, stored_version
from stream.messages import ModelAnnouncement
from worker.hits import Measured


class GuardSettings(BaseModel):
    """When the worker gives up a new version for the one before it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(
        True, description="Roll back by itself; for that the worker writes to the models topic"
    )
    min_clicks: int = Field(
        1_500, ge=100, description="Evaluated clicks of a version between two comparisons"
    )
    max_clicks: int = Field(
        15_000, ge=100, description="Evaluated clicks after which a version has proven itself"
    )
    min_errors: float = Field(
        3.0, gt=0, le=10, description="Standard errors by which the hit rate must have fallen"
    )
    min_drop: float = Field(
        0.2, gt=0, lt=1, description="Share of the hit rate that must be lost as well"
    )
    max_rollbacks: int = Field(
        2, ge=1, description="Rollbacks within freeze_minutes after which there are no more"
    )
    freeze_minutes: float = Field(
        30.0, gt=0, description="Time for which rollbacks count towards max_rollbacks"
    )


def is_worse(one: Measured, other: Measured, settings: GuardSettings) -> bool:
    """Whether one maker's lists have lost more hits than the settings allow, and than chance does.

    Both have evaluated lists; their errors are binomial.
    """
    rates = one.hits / one.evaluated, other.hits / other.evaluated
    variance = sum(
        rate * (1 - rate) / measured.evaluated
        for rate, measured in zip(rates, (one, other), strict=True)
    )
    fall = rates[1] - rates[0]
    return fall > settings.min_drop * rates[1] and fall > settings.min_errors * math.sqrt(variance)


@dataclass(frozen=True, slots=True)
class Alarm:
    """A version that recommends worse than the one before it, and by how much.

    `frozen`: there were too many rollbacks of late to start another.
    """

    bad: ModelAnnouncement
    good: ModelAnnouncement
    rate: float
    rate_before: float
    evaluated: int
    frozen: bool

    def __str__(self) -> str:
        return (
            f"next-click hit rate {self.rate:.2%} on {self.evaluated} clicks, "
            f"{self.rate_before:.2%} before"
        )


class _Reign:
    """A bundle, and what became of the lists that it made."""

    def __init__(self, maker: int, announcement: ModelAnnouncement, *, next_look: int) -> None:
        self.maker = maker
        self.announcement = announcement
        self.bundle = bundle_of(stored_version(announcement))
        # Nobody judges what somebody chose.
        self.on_trial = announcement.restores is None
        self.is_bad = False
        self.next_look = next_look
        self.evaluated = 0
        self.hits = 0

    @property
    def rate(self) -> float:
        return self.hits / self.evaluated

    @property
    def measured(self) -> Measured:
        return Measured(self.maker, self.evaluated, self.hits)


class Guard:
    """Compares the bundle that serves with the one before it, while the former is on trial.

    Looks are `min_clicks` apart: each is a chance of a false alarm. An alarm comes again at the
    next look for as long as the bundle serves; what it asks for is done elsewhere.
    """

    def __init__(self, settings: GuardSettings) -> None:
        self._settings = settings
        self._serving: _Reign | None = None
        self._before: _Reign | None = None
        self._rollbacks: deque[float] = deque(maxlen=settings.max_rollbacks)
        self._num_makers = 0

    def serve(self, announcement: ModelAnnouncement, now_seconds: float) -> int:
        """Note what serves from now on; returns the number of the maker of its lists."""
        serving, before = self._serving, self._before
        bundle = bundle_of(stored_version(announcement))
        if serving is not None and serving.bundle == bundle:
            return serving.maker
        if serving is not None and announcement.gate.verdict == ROLLED_BACK:
            self._rollbacks.append(now_seconds)
        if before is not None and before.bundle == bundle:
            before.on_trial = False
            self._serving, self._before = before, None
            return before.maker
        self._num_makers += 1
        self._serving = _Reign(self._num_makers, announcement, next_look=self._settings.min_clicks)
        if announcement.restores is not None:
            self._before = None
        elif serving is None or not serving.is_bad:  # a bad one is no measure for the next
            self._before = serving
        return self._serving.maker

    def count(self, measured: Iterable[Measured]) -> None:
        """Count what became of lists."""
        for maker, evaluated, hits in measured:
            for reign in (self._serving, self._before):
                if reign is not None and reign.maker == maker:
                    reign.evaluated += evaluated
                    reign.hits += hits
                    self._forget_old_clicks(reign)

    def alarm(self, now_seconds: float) -> Alarm | None:
        """Return an alarm when a look is due and the serving bundle is worse."""
        settings, serving, before = self._settings, self._serving, self._before
        if not settings.enabled or serving is None or before is None or not serving.on_trial:
            return None
        if serving.evaluated < serving.next_look or before.evaluated < settings.min_clicks:
            return None
        serving.next_look = serving.evaluated + settings.min_clicks
        if is_worse(serving.measured, before.measured, settings):
            serving.is_bad = True
            return Alarm(
                serving.announcement,
                before.announcement,
                serving.rate,
                before.rate,
                serving.evaluated,
                frozen=self._is_frozen(now_seconds),
            )
        serving.on_trial = serving.evaluated < settings.max_clicks
        return None

    def _forget_old_clicks(self, reign: _Reign) -> None:
        """Let a rate follow the time of day: halve what has become too many clicks."""
        if reign.evaluated >= 2 * self._settings.max_clicks:
            reign.evaluated //= 2
            reign.hits //= 2

    def _is_frozen(self, now_seconds: float) -> bool:
        limit = now_seconds - self._settings.freeze_minutes * 60
        recent = [rollback for rollback in self._rollbacks if rollback > limit]
        return len(recent) >= self._settings.max_rollbacks
