"""Items clicked before any catalogue names them: their codes, and vectors to recommend them by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from model.catalogue import Catalogue
from worker.sessions import EMPTY

Array = np.ndarray[Any, np.dtype[Any]]
_FIRST = EMPTY - 1
_MANY = 10_000


class Newcomers:
    """Unknown items have codes -2, -3, … so that a session remembers them until a version does.

    A newcomer's vector is the mean of the session queries that led to its first clicks, scaled to
    the score of the middle of the lists that these sessions got: so it enters lists of similar
    sessions half way down. Codes are bounded by the rings and vectors that hold them: `trim` frees
    the rest.
    """

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._ids: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._sums: dict[int, Array] = {}
        self._clicks: dict[int, int] = {}
        self._next = _FIRST
        self._kept = 0

    def __len__(self) -> int:
        """Number of items known here only."""
        return len(self._ids)

    def code(self, item_id: str) -> int:
        """Return the item's code, giving it one at its first click."""
        code = self._ids.get(item_id)
        if code is None:
            code = self._ids[item_id] = self._next
            self._names[code] = item_id
            self._next -= 1
        return code

    def item_id(self, code: int) -> str:
        """Return the item of a code; raises KeyError for one that was freed."""
        return self._names[code]

    def code_of(self, catalogue: Catalogue) -> Callable[[str], int]:
        """Return what gives each item its row in `catalogue`, or its code."""
        row, code = catalogue.row, self.code

        def code_of(item_id: str) -> int:
            known = row(item_id)
            return known if known >= 0 else code(item_id)

        return code_of

    def item_name(self, catalogue: Catalogue) -> Callable[[int], str]:
        """Return what gives each row of `catalogue`, and each code, its item."""
        ids, newcomer = catalogue.ids, self.item_id
        return lambda code: ids[code] if code >= 0 else newcomer(code)

    def learn(self, code: int, query_D: Array, middle_score: float) -> Array:
        """Add the query that led to a click on the item, and return its vector [D]."""
        sum_D = self._sums.setdefault(code, np.zeros(self._dim, np.float32))
        sum_D += np.float32(middle_score) * query_D
        self._clicks[code] = self._clicks.get(code, 0) + 1
        return self._vector(code)

    def vectors(self) -> dict[int, Array]:
        """Return the vector of each item that has one, by code."""
        return {code: self._vector(code) for code in self._sums}

    def unlearn(self, code: int) -> None:
        """Give up the item's vector: no index holds it."""
        self._sums.pop(code, None)
        self._clicks.pop(code, None)

    def admit(self, row_of: Callable[[str], int]) -> dict[int, int]:
        """Give up the items that a new catalogue names: returns code → catalogue row."""
        rows = {code: row_of(item_id) for code, item_id in self._names.items()}
        admitted = {code: row for code, row in rows.items() if row >= 0}
        for code in admitted:
            self._forget(code)
        return admitted

    def renew(self, dim: int, codes_in_use: Callable[[], set[int]]) -> None:
        """Prepare for another encoder: vectors of the old one mean nothing in its space."""
        self._dim = dim
        self._sums.clear()
        self._clicks.clear()
        self._kept = 0
        self.trim(codes_in_use)

    def trim(self, codes_in_use: Callable[[], set[int]]) -> None:
        """Free the codes that no session and no vector holds, once there are many.

        `codes_in_use` reads all rings, so it is not asked again before their number has doubled.
        """
        if len(self._names) <= max(_MANY, 2 * self._kept):
            return
        used = codes_in_use() | self._clicks.keys()
        for code in [code for code in self._names if code not in used]:
            self._forget(code)
        self._kept = len(self._names)

    def _vector(self, code: int) -> Array:
        return self._sums[code] / np.float32(self._clicks[code])

    def _forget(self, code: int) -> None:
        del self._ids[self._names.pop(code)]
        self.unlearn(code)
