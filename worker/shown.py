"""How often each item was shown by this process; knows rows only. Shape: N rows."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class Shown:
    """Counts by catalogue row; an item without a row counts as never shown."""

    def __init__(self, num_rows: int) -> None:
        self._counts_N = np.zeros(num_rows, np.int64)

    def reach(self, num_rows: int) -> None:
        """Have counts for at least so many rows."""
        missing = num_rows - len(self._counts_N)
        if missing > 0:
            self._counts_N = np.append(self._counts_N, np.zeros(missing, np.int64))

    def go_on(self, before: Shown) -> None:
        """Go on from the counts of a version whose rows mean the same items."""
        num = min(len(self._counts_N), len(before._counts_N))
        self._counts_N[:num] = before._counts_N[:num]

    def add(self, codes_M: Array) -> None:
        """Count some items; codes below 0 have no row."""
        np.add.at(self._counts_N, codes_M[codes_M >= 0], 1)

    def of(self, codes_T: Array) -> Array:
        """Return how often each of some items was shown."""
        return np.where(codes_T >= 0, self._counts_N[np.maximum(codes_T, 0)], 0)
