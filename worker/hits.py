"""The live next-click hit rate: was a click on an item of the list that its user got before?

It is no click-through rate, which would need impressions. A hit counts for whoever made the list,
named by a number, the maker. Shapes: B clicks, S slots, K list.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from worker.sessions import EMPTY

Array = np.ndarray[Any, np.dtype[Any]]


class Measured(NamedTuple):
    """What became of the lists of one maker."""

    maker: int
    evaluated: int
    hits: int


class NextClickMeter:
    """Keep every slot's last list and compare the session's next click with it."""

    def __init__(self, k: int) -> None:
        self._lists_SK: Array = np.full((1024, k), EMPTY, np.int32)
        self._maker_S: Array = np.zeros(1024, np.int32)

    def measure(
        self,
        slot_B: Array,
        code_B: Array,
        continued_B: Array,
        lists_BK: Array,
        maker_B: Array,
    ) -> list[Measured]:
        """Compare a batch in log order with the lists before, and remember its own lists.

        `continued_B` marks clicks that are applied and not the first of their session; `maker_B`
        made `lists_BK`. Makers of no evaluated list are left out.
        """
        self._reserve(int(slot_B.max(initial=0)) + 1)
        order_B = np.argsort(slot_B, kind="stable")
        same_B = slot_B[order_B][1:] == slot_B[order_B][:-1]
        before_BK = self._lists_SK[slot_B]
        before_BK[order_B[1:][same_B]] = lists_BK[order_B[:-1][same_B]]
        made_B = self._maker_S[slot_B]
        made_B[order_B[1:][same_B]] = maker_B[order_B[:-1][same_B]]
        evaluated_B = continued_B & (before_BK != EMPTY).any(axis=1)
        hits_B = evaluated_B & (before_BK == code_B[:, None]).any(axis=1)
        last_B = order_B[np.r_[~same_B, True]] if len(order_B) else order_B
        self._lists_SK[slot_B[last_B]] = lists_BK[last_B]
        self._maker_S[slot_B[last_B]] = maker_B[last_B]
        return [
            Measured(one, int(evaluated_B[made_B == one].sum()), int(hits_B[made_B == one].sum()))
            for one in np.unique(made_B[evaluated_B]).tolist()
        ]

    def forget(self) -> None:
        """Forget all lists: their rows mean other items now."""
        self._lists_SK.fill(EMPTY)

    def forget_slot(self, slot: int) -> None:
        """Forget the list of a slot that another user has now."""
        if 0 <= slot < len(self._lists_SK):
            self._lists_SK[slot] = EMPTY

    def _reserve(self, num_slots: int) -> None:
        missing = num_slots - len(self._lists_SK)
        if missing > 0:
            num = max(missing, len(self._lists_SK))
            more = np.full((num, self._lists_SK.shape[1]), EMPTY, np.int32)
            self._lists_SK = np.concatenate([self._lists_SK, more])
            self._maker_S = np.concatenate([self._maker_S, np.zeros(num, np.int32)])
