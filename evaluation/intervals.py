"""How far figures can be trusted: bootstrap over sessions, whose clicks are not independent.

Shapes: P predictions, M figures, S sessions, R resamples of one block.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

RESAMPLES: Final = 1_000
_BLOCK_DRAWS: Final = 4_000_000  # 32 MB at once
_PERCENTILES: Final = (2.5, 97.5)


def session_intervals(
    session_P: Int64, values_PM: Float64, *, seed: int, resamples: int = RESAMPLES
) -> list[tuple[float, float]]:
    """Return the 95 % interval of each column's mean; without predictions (0, 0)."""
    if not len(session_P):
        return [(0.0, 0.0)] * values_PM.shape[1]
    sums_SM, sizes_S = _by_session(session_P, values_PM)
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK_DRAWS // len(sizes_S))
    means = []
    for start in range(0, resamples, block):
        drawn_RS = _draw(rng, min(block, resamples - start), len(sizes_S))
        means.append(drawn_RS @ sums_SM / (drawn_RS @ sizes_S)[:, None])
    low_M, high_M = np.percentile(np.concatenate(means), _PERCENTILES, axis=0)
    return list(zip(low_M.tolist(), high_M.tolist(), strict=True))


def _by_session(session_P: Int64, values_PM: Float64) -> tuple[Float64, Float64]:
    """Return each session's sums, and how many predictions it has."""
    code_P = np.unique(session_P, return_inverse=True)[1]
    sums = [np.bincount(code_P, column_P) for column_P in values_PM.T]
    return np.stack(sums, axis=1), np.bincount(code_P).astype(np.float64)


def _draw(rng: np.random.Generator, num: int, num_sessions: int) -> Float64:
    """Return how often each session is in each of `num` samples of equal size."""
    draws_RS = rng.integers(num_sessions, size=(num, num_sessions))
    draws_RS += np.arange(num)[:, None] * num_sessions
    counts = np.bincount(draws_RS.ravel(), minlength=num * num_sessions)
    return counts.reshape(num, num_sessions).astype(np.float64)
