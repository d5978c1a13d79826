"""The trained item rows: ids, raw vectors, Adagrad sums and decayed counts; knows no session.

Rows are append-only. Shapes: N items, D dimensions, U rows of one call.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from index.popularity import CountsState, DecayedCounts

Int64 = NDArray[np.int64]

_MIN_CAPACITY = 1024
_NEWCOMER_NOISE = 0.1  # length of the random part of a new vector beside its mean of length one


class ItemTable:
    """Columns of equal length that grow together, doubling their capacity.

    `weights_ND` (raw vectors) and `accumulators_N` (Adagrad sums) are views that learning writes
    to; after an `append` they are new ones. `counts_N` are the clicks decayed to `counted_ms`.
    """

    def __init__(self, dim: int, *, count_half_life_ms: float) -> None:
        self._dim = dim
        self.half_life_ms = count_half_life_ms
        self._ids: list[str] = []
        self._row_of: dict[str, int] = {}
        self._weights = torch.zeros(_MIN_CAPACITY, dim)
        self._accumulators = torch.zeros(_MIN_CAPACITY)
        self._clicks = DecayedCounts(count_half_life_ms)
        self._show_columns()

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> Sequence[str]:
        """Item ids in row order."""
        return self._ids

    def row(self, item_id: str) -> int:
        """Return the row of an item, -1 when it has none."""
        return self._row_of.get(item_id, -1)

    def unit_vectors(self) -> Tensor:
        """Return unit vectors [N, D], a copy."""
        return normalize(self.weights_ND, dim=1)

    def append(self, ids: Sequence[str], weights_ND: Tensor) -> None:
        """Append new items with their first vectors."""
        if not ids:
            return
        start, stop = len(self), len(self) + len(ids)
        self._reserve(stop)
        self._row_of.update((item_id, start + place) for place, item_id in enumerate(ids))
        self._ids.extend(ids)
        if len(self._row_of) != stop:
            raise ValueError("an item was appended twice")
        self._weights[start:stop] = weights_ND
        self._clicks.grow_to(stop)
        self._show_columns()

    def newcomer(self, beside: Sequence[int], rng: np.random.Generator) -> Tensor:
        """Return a first vector: the mean of the items clicked before it, else a random one."""
        noise_D = torch.from_numpy(rng.standard_normal(self._dim).astype(np.float32))
        noise_D = normalize(noise_D, dim=0)
        if not beside:
            return noise_D
        mean_D = normalize(self.weights_ND[list(beside)], dim=1).mean(0)
        return normalize(normalize(mean_D, dim=0) + _NEWCOMER_NOISE * noise_D, dim=0)

    @property
    def counts_N(self) -> Tensor:  # noqa: N802 - the shape suffix
        """Clicks of each item decayed to `counted_ms`, a copy."""
        return torch.from_numpy(self._clicks.counts(self.counted_ms))

    @property
    def counted_ms(self) -> int:
        """Time of the newest counted click."""
        return self._clicks.newest_ms

    def count(self, rows: Int64, time_ms: int) -> None:
        """Count clicks at one time; earlier counts decay to it, time never runs backwards."""
        self._clicks.add(rows, max(time_ms, self.counted_ms))

    def set_counts(self, counts_N: Tensor, counted_ms: int) -> None:
        """Replace all counts, decayed to `counted_ms`."""
        if len(counts_N) != len(self):
            raise ValueError(f"{len(counts_N)} counts for {len(self)} items")
        self._clicks.set_counts(counts_N.numpy(), counted_ms)

    def counts_state(self) -> CountsState:
        """Return the counts as they are kept, for a checkpoint."""
        return self._clicks.state()

    def restore_counts(self, state: CountsState) -> None:
        """Take over the counts of a checkpoint."""
        self._clicks.restore(state)

    def _show_columns(self) -> None:
        size = len(self)
        self.weights_ND = self._weights[:size]
        self.accumulators_N = self._accumulators[:size]

    def _reserve(self, size: int) -> None:
        capacity = len(self._weights)
        if size <= capacity:
            return
        extra = max(size, 2 * capacity) - capacity
        self._weights = torch.cat([self._weights, torch.zeros(extra, self._dim)])
        self._accumulators = torch.cat([self._accumulators, torch.zeros(extra)])
