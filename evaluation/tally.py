"""What was answered to each prediction, kept until all are in; knows no model and no session.

Shapes: B predictions of one call, P of all, K items of a list.
"""

from collections.abc import Mapping

import numpy as np

from evaluation.exposure import Exposure, Float64
from evaluation.metrics import Int64, ranks_of
from evaluation.recorded import Recorded


class Tally:
    """Ranks of all targets, in the lists and in each channel's, and what the lists showed."""

    def __init__(self, recorded: Recorded) -> None:
        self.exposure = Exposure(len(recorded.item_ids))
        self._item_F = recorded.item_F
        self._points: list[Int64] = []
        self._ranks: list[Int64] = []
        self._channels: dict[str, list[Int64]] = {}

    def add(
        self,
        points_B: Int64,
        lists_BK: Int64,
        distances_B: Float64,
        channels: Mapping[str, Int64],
    ) -> None:
        """Count the lists that answer some predictions; items are numbers of the log."""
        targets_B = self._item_F[points_B]
        self._points.append(points_B)
        self._ranks.append(ranks_of(targets_B, lists_BK))
        self.exposure.add(lists_BK, distances_B)
        for name, found_BK in channels.items():
            self._channels.setdefault(name, []).append(ranks_of(targets_B, found_BK))

    def __len__(self) -> int:
        """Return the number of predictions so far."""
        return sum(map(len, self._points))

    def ranks(self) -> tuple[Int64, Int64]:
        """Return every prediction's click and rank, in log order."""
        points_P = _joined(self._points)
        order_P = np.argsort(points_P)
        return points_P[order_P], _joined(self._ranks)[order_P]

    def channel_ranks(self) -> dict[str, Int64]:
        """Return the ranks in each channel's own lists, in any order."""
        return {name: _joined(parts) for name, parts in self._channels.items()}


def _joined(parts: list[Int64]) -> Int64:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
