"""Percentiles of latencies, over all and over the last ones; knows no clock."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

_RECENT = 2_000
_LARGEST_MS = 60_000


class Latencies:
    """Counts by millisecond: exact percentiles, and no more memory for an endless run."""

    def __init__(self) -> None:
        self._counts_T = np.zeros(_LARGEST_MS + 1, np.int64)
        self._recent: deque[int] = deque(maxlen=_RECENT)

    def add(self, latency_ms: int) -> None:
        """Count one; what is above a minute counts as a minute."""
        bounded_ms = min(max(latency_ms, 0), _LARGEST_MS)
        self._counts_T[bounded_ms] += 1
        self._recent.append(bounded_ms)

    def percentile(self, share: float) -> int | None:
        """Return the least latency that `share` of all do not exceed; None without any."""
        total = int(self._counts_T.sum())
        if not total:
            return None
        rank = max(1, math.ceil(share * total))
        return int(np.searchsorted(np.cumsum(self._counts_T), rank))

    def recent_percentile(self, share: float) -> int | None:
        """Return the same over the last two thousand."""
        if not self._recent:
            return None
        ordered = sorted(self._recent)
        return ordered[max(1, math.ceil(share * len(ordered))) - 1]
