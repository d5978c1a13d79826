"""How often each row was clicked of late, decayed exponentially; knows no item ids and no clock.

Shapes: N rows, B clicks of one call, K best rows.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

# Weights are kept relative to a reference time and moved to a new one before they leave float64.
_MAX_HALF_LIVES: Final = 256.0


@dataclass(frozen=True, slots=True)
class CountsState:
    """Everything `DecayedCounts` holds: `restore(state())` continues bit for bit."""

    weights_N: Float64
    reference_ms: int | None
    newest_ms: int


class DecayedCounts:
    """A count per row in which a click weighs half after every half-life.

    Nothing decays until it is read: a click of time t adds 2^((t - reference) / half-life), which
    is exact for clicks in any order. Memory is one float64 per row.
    """

    def __init__(self, half_life_ms: float, *, num_rows: int = 0) -> None:
        if not half_life_ms > 0:
            raise ValueError(f"half-life of {half_life_ms} ms, must be above 0")
        self._half_life_ms = half_life_ms
        self._weights_N: Float64 = np.zeros(num_rows)
        self._num_rows = num_rows
        self._reference_ms: int | None = None
        self._newest_ms: int = 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._num_rows

    @property
    def newest_ms(self) -> int:
        """Time of the newest click, 0 before the first."""
        return self._newest_ms

    def state(self) -> CountsState:
        """Return a copy of the content."""
        return CountsState(
            self._weights_N[: self._num_rows].copy(), self._reference_ms, self._newest_ms
        )

    def restore(self, state: CountsState) -> None:
        """Take over the content that `state` returned."""
        self._weights_N = state.weights_N.astype(np.float64)  # a copy
        self._num_rows = len(self._weights_N)
        self._reference_ms, self._newest_ms = state.reference_ms, state.newest_ms

    def set_counts(self, counts_N: Float64 | Float32, time_ms: int) -> None:
        """Begin anew with counts that are decayed to `time_ms`."""
        self.restore(CountsState(np.asarray(counts_N, np.float64), time_ms, time_ms))

    def add(self, rows_B: Int64, times_ms: int | Int64) -> None:
        """Count clicks, all at one time or each at its own; rows not seen before are added.

        Raises ValueError for a negative row.
        """
        if not len(rows_B):
            return
        if rows_B.min() < 0:
            raise ValueError(f"row {rows_B.min()} is not in the catalogue")
        self.grow_to(int(rows_B.max()) + 1)
        newest_ms = int(np.asarray(times_ms, np.int64).max())
        self._move_reference(newest_ms)
        half_lives_B = (np.asarray(times_ms) - self._reference_ms) / self._half_life_ms
        np.add.at(self._weights_N, rows_B, np.exp2(half_lives_B))

    def grow_to(self, num_rows: int) -> None:
        """Have at least `num_rows` rows, new ones without clicks."""
        missing = num_rows - len(self._weights_N)
        if missing > 0:
            spare = max(missing, len(self._weights_N) // 2)
            self._weights_N = np.concatenate([self._weights_N, np.zeros(spare)])
        self._num_rows = max(self._num_rows, num_rows)

    def counts(self, now_ms: int) -> Float32:
        """Return the counts [N] decayed to `now_ms`, at the earliest to the newest click."""
        return (self._weights_N[: self._num_rows] * self._factor(now_ms)).astype(np.float32)

    def top(self, k: int, now_ms: int) -> tuple[Int64, Float32]:
        """Return the `k` most clicked rows, best first, and their counts; rows without are out."""
        weights_N = self._weights_N[: self._num_rows]
        k = min(k, int(np.count_nonzero(weights_N)))
        if not k:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        kth = np.partition(weights_N, -k)[-k]
        rows = np.flatnonzero(weights_N >= kth)
        rows = rows[np.argsort(-weights_N[rows], kind="stable")][:k]
        return rows, (weights_N[rows] * self._factor(now_ms)).astype(np.float32)

    def _factor(self, now_ms: int) -> float:
        if self._reference_ms is None:
            return 1.0
        half_lives = (max(now_ms, self._newest_ms) - self._reference_ms) / self._half_life_ms
        return float(np.exp2(-half_lives))

    def _move_reference(self, newest_ms: int) -> None:
        if self._reference_ms is None:
            self._reference_ms = self._newest_ms = newest_ms
        self._newest_ms = max(self._newest_ms, newest_ms)
        half_lives = (self._newest_ms - self._reference_ms) / self._half_life_ms
        if half_lives > _MAX_HALF_LIVES:
            self._weights_N *= np.exp2(-half_lives)
            self._reference_ms = self._newest_ms
