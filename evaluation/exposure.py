"""What lists show, whatever is clicked then: how much of a catalogue, how alike, how well known.

Shapes: B lists of one call, K items of a list, I items of the log, N rows of a version, D of a
vector, C items of the catalogue.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

NOTHING: Final = -1


class Exposure:
    """Counts how often each item of the log is shown; lists are padded with NOTHING."""

    def __init__(self, num_items: int) -> None:
        self.shown_I: Int64 = np.zeros(num_items, np.int64)
        self._lists = 0
        self._short = 0
        self._distances = 0
        self._distance_sum = 0.0

    def add(self, lists_BK: Int64, distances_B: Float64) -> None:
        """Count some lists of item numbers; NaN is the distance within a list that has none."""
        shown_BK = lists_BK != NOTHING
        self.shown_I += np.bincount(lists_BK[shown_BK], minlength=len(self.shown_I))
        self._lists += len(lists_BK)
        self._short += int((~shown_BK).any(axis=1).sum())
        self._distances += int(np.isfinite(distances_B).sum())
        self._distance_sum += float(np.nansum(distances_B))

    @property
    def short_lists(self) -> float:
        """The share of lists with fewer than k items."""
        return self._short / max(self._lists, 1)

    @property
    def intra_list_distance(self) -> float:
        """The mean distance between two items of a list."""
        return self._distance_sum / max(self._distances, 1)

    def coverage(self, catalogue_I: Bool) -> float:
        """Return the distinct items shown as a share of the catalogue's size."""
        return int((self.shown_I > 0).sum()) / max(int(catalogue_I.sum()), 1)

    def gini(self, catalogue_I: Bool) -> float:
        """Return how unequally the catalogue is shown: 0 all alike, towards 1 always the same."""
        shown_C = np.sort(self.shown_I[catalogue_I])
        total, size = int(shown_C.sum()), len(shown_C)
        if not total:
            return 0.0
        place_C = np.arange(1, size + 1)
        return float(2.0 * (place_C * shown_C).sum() / (size * total) - (size + 1) / size)

    def novelty(self, clicks_I: Int64) -> float:
        """Return the mean of -log2 of an item's share of `clicks_I` over everything shown.

        An item that has no clicks there counts as if it had one.
        """
        shares_I = np.maximum(clicks_I, 1) / max(int(clicks_I.sum()), 1)
        total = int(self.shown_I.sum())
        return float((self.shown_I * -np.log2(shares_I)).sum() / max(total, 1))


def distances_within(rows_BK: NDArray[Any], vectors_ND: Float32) -> Float64:
    """Return each list's mean of 1 - cosine over its pairs, NaN for a list of fewer than two.

    The vectors have length one. From |sum v|² = n + sum of cosines over ordered pairs: no pair is
    ever formed.
    """
    shown_BK = rows_BK != NOTHING
    vectors_BKD = vectors_ND[np.maximum(rows_BK, 0)]
    vectors_BKD[~shown_BK] = 0.0
    sums_BD = vectors_BKD.sum(axis=1, dtype=np.float64)
    count_B = shown_BK.sum(axis=1).astype(np.float64)
    pairs_B = count_B * (count_B - 1.0)
    cosines_B = (sums_BD**2).sum(axis=1) - count_B
    some_B = pairs_B > 0
    return np.where(some_B, 1.0 - cosines_B / np.where(some_B, pairs_B, 1.0), np.nan)
