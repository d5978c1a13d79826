"""Next-click hit rates along a stream and lately; knows neither clicks nor lists."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

_RECENT = 2_000


class Judged(NamedTuple):
    """A click that went on with a session; the best reachable rate is NaN where unknown."""

    hit: bool
    popular_hit: bool
    best_rate: float


class Rates(NamedTuple):
    """Hit rates on the same clicks; None where there is nothing to state."""

    model: float | None
    popularity: float | None
    best_reachable: float | None


NO_RATES = Rates(None, None, None)


@dataclass(slots=True)
class _Stretch:
    """Judged clicks of a stretch of the stream, summed."""

    judged: int = 0
    hits: int = 0
    popular_hits: int = 0
    best: float = 0.0
    with_best: int = 0

    def add(self, one: Judged) -> None:
        self.judged += 1
        self.hits += one.hit
        self.popular_hits += one.popular_hit
        if not math.isnan(one.best_rate):
            self.best += one.best_rate
            self.with_best += 1

    def merge(self, other: _Stretch) -> None:
        self.judged += other.judged
        self.hits += other.hits
        self.popular_hits += other.popular_hits
        self.best += other.best
        self.with_best += other.with_best

    def rates(self) -> Rates:
        if not self.judged:
            return NO_RATES
        best = self.best / self.with_best if self.with_best else None
        return Rates(self.hits / self.judged, self.popular_hits / self.judged, best)


class HitRates:
    """Sums in at most `size` stretches of equally many clicks, however long the stream is."""

    def __init__(self, size: int = 3_000) -> None:
        self._size = size
        self._width = 1
        self._stretches = [_Stretch()]
        self._recent: deque[Judged] = deque(maxlen=_RECENT)

    def add(self, position: int, one: Judged) -> None:
        """Enter a judged click that was the `position`-th of the stream."""
        while position // self._width >= self._size:
            self._halve()
        number = position // self._width
        while len(self._stretches) <= number:
            self._stretches.append(_Stretch())
        self._stretches[number].add(one)
        self._recent.append(one)

    def last(self, share: float) -> Rates:
        """Return the rates over the last `share` of the stream."""
        total = _Stretch()
        for stretch in self._stretches[round(len(self._stretches) * (1 - share)) :]:
            total.merge(stretch)
        return total.rates()

    def recent(self) -> Rates:
        """Return the rates over the judged clicks that were entered last."""
        total = _Stretch()
        for one in self._recent:
            total.add(one)
        return total.rates()

    def _halve(self) -> None:
        for left, right in zip(self._stretches[::2], self._stretches[1::2], strict=False):
            left.merge(right)
        self._stretches = self._stretches[::2]
        self._width *= 2
