"""Items near a query: FAISS over a version's vectors plus newcomers; knows no item ids.

Shapes: N items, D dimensions, B queries, K best items, M newcomers in the side buffer.
"""

from typing import Any, Final, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from index.merge import merge
from index.plan import Float32, IndexPlan, build_lists, plan

__all__ = ["IndexFullError", "IndexPlan", "ItemIndex", "plan"]

Int64 = NDArray[np.int64]

NO_ROW: Final = -1
_TIE: Final = 1e-6


class IndexFullError(RuntimeError):
    """The side buffer holds as many newcomers as it may; the next version takes them over."""


class ItemIndex:
    """One version's items, and those that came after it was built.

    Not thread-safe: `search`, `add` and `measure_recall` belong to the one thread that owns the
    index. It may be built in another thread and handed over. FAISS uses as many threads as the
    process has set.
    """

    def __init__(self, vectors_ND: Float32, index: Any, *, side_capacity: int) -> None:
        self._vectors_ND = vectors_ND
        self._index = index
        self._side_MD = np.zeros((side_capacity, vectors_ND.shape[1]), np.float32)
        self._side_rows_M = np.full(side_capacity, NO_ROW, np.int64)
        self._side_place: dict[int, int] = {}

    @classmethod
    def build(cls, vectors_ND: Float32, plan: IndexPlan, *, side_capacity: int = 2048) -> Self:
        """Return an index over unit vectors; raises ValueError for a plan of other vectors."""
        if vectors_ND.ndim != 2:  # noqa: PLR2004
            raise ValueError(f"item vectors of shape {vectors_ND.shape}, not (items, dimensions)")
        vectors_ND = np.ascontiguousarray(vectors_ND, np.float32)
        if plan.num_lists:
            return cls(vectors_ND, build_lists(vectors_ND, plan), side_capacity=side_capacity)
        index = faiss.IndexFlatIP(vectors_ND.shape[1])
        index.add(vectors_ND)
        return cls(vectors_ND, index, side_capacity=side_capacity)

    @property
    def num_items(self) -> int:
        """Items of the version."""
        return len(self._vectors_ND)

    @property
    def num_side(self) -> int:
        """Newcomers in the side buffer."""
        return len(self._side_place)

    def add(self, row: int, vector_D: Float32) -> None:
        """Make a newcomer searchable at once, or replace its vector.

        Raises IndexFullError when the buffer is full, ValueError for a row of the version or -1.
        """
        if 0 <= row < self.num_items or row == NO_ROW:
            raise ValueError(f"row {row} is not a newcomer's")
        if vector_D.shape != self._side_MD.shape[1:] or not np.isfinite(vector_D).all():
            raise ValueError(f"row {row} needs {self._side_MD.shape[1]} finite numbers")
        place = self._side_place.get(row, self.num_side)
        if place == len(self._side_MD):
            raise IndexFullError(f"the side buffer holds {place} items, the most it may")
        self._side_MD[place] = vector_D
        self._side_rows_M[place] = row
        self._side_place[row] = place

    def search(self, queries_BD: Float32, k: int) -> tuple[Float32, Int64]:
        """Return (scores [B, K], rows [B, K]), best first, padded with (-inf, -1).

        There are k rows where that many exist; a query that is not finite gets padding only.
        Raises ValueError for other dimensions or k < 1. Hot path: `python -m benchmarks.index`.
        """
        if k < 1:
            raise ValueError(f"k is {k}, must be at least 1")
        queries_BD = self._checked(queries_BD)
        finite_B = np.logical_and.reduce(np.isfinite(queries_BD), axis=1)
        all_finite = bool(finite_B.all())
        if not all_finite:
            queries_BD = np.where(finite_B[:, None], queries_BD, np.float32(0))
        scores_BK, rows_BK = self._search_main(queries_BD, k)
        if self.num_side:
            side_BM = queries_BD @ self._side_MD[: self.num_side].T
            side_rows_M = self._side_rows_M[: self.num_side]
            scores_BK, rows_BK = merge(scores_BK, rows_BK, side_BM, side_rows_M)
        if not all_finite:
            rows_BK[~finite_B] = NO_ROW
        scores_BK[rows_BK == NO_ROW] = -np.inf
        return scores_BK, rows_BK

    def measure_recall(self, queries_BD: Float32, k: int) -> float:
        """Return the share of the exact best `k` that `search` finds; equal scores count."""
        queries_BD = self._checked(queries_BD)
        found_BK, rows_BK = self.search(queries_BD, k)
        exact_BX = np.concatenate(
            [queries_BD @ self._vectors_ND.T, queries_BD @ self._side_MD[: self.num_side].T], axis=1
        )
        k = min(k, exact_BX.shape[1])
        if not k or not len(queries_BD):
            return 1.0
        threshold_B = np.partition(exact_BX, -k, axis=1)[:, -k]
        hits_BK = (rows_BK != NO_ROW) & (found_BK >= threshold_B[:, None] - _TIE)
        return float(hits_BK.sum() / (k * len(queries_BD)))

    def _checked(self, queries_BD: Float32) -> Float32:
        dim = self._vectors_ND.shape[1]
        if queries_BD.ndim != 2 or queries_BD.shape[1] != dim:  # noqa: PLR2004
            raise ValueError(f"queries of shape {queries_BD.shape}, the index has {dim} dimensions")
        return np.ascontiguousarray(queries_BD, np.float32)

    def _search_main(self, queries_BD: Float32, k: int) -> tuple[Float32, Int64]:
        scores_BK, rows_BK = self._index.search(queries_BD, k)
        short_B = rows_BK[:, min(k, self.num_items) - 1] == NO_ROW if self.num_items else None
        if short_B is not None and short_B.any():
            # The visited lists held fewer than k items: visit all of them, for these queries only.
            everywhere = faiss.SearchParametersIVF()
            everywhere.nprobe = self._index.nlist
            scores_BK[short_B], rows_BK[short_B] = self._index.search(
                queries_BD[short_B], k, params=everywhere
            )
        return scores_BK, rows_BK
