"""Items near a query: FAISS over a bundle's vectors, what has changed since, and newcomers.

Knows no item ids. Shapes: N items, D dimensions, B queries, K best items, C found ones, M rows in
the side buffer or in a delta.
"""

from typing import Any, Final, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from index.lists import NONE_ASIDE, Bool, Float32, IndexPlan, Lists
from index.merge import merge
from index.plan import plan
from index.rescore import NO_ROW

__all__ = ["IndexFullError", "IndexPlan", "ItemIndex", "plan"]

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

_TIE: Final = 1e-6
# Measured in docs/decisions/0010-deltas.md: the cosine to its old vector below which a row is
# searched on its own.
_FAR: Final = 0.95


class IndexFullError(RuntimeError):
    """The side buffer holds as many newcomers as it may; the next version takes them over."""


class ItemIndex:
    """One version's items, and those that came after it was built.

    Few items are all compared with a query, of more those in the lists near it. An index of a delta
    shares its bundle's lists: it searches there by the old vectors and scores by the new ones; new
    and far moved rows are in the side buffer.

    Not thread-safe: `search`, `add` and `measure_recall` belong to the one thread that owns the
    index. It may be built in another thread and handed over. FAISS uses as many threads as the
    process has set.
    """

    def __init__(
        self,
        vectors_ND: Float32,
        main: Any,
        *,
        side_capacity: int,
        aside_N: Bool = NONE_ASIDE,
        own_rows_M: Int64 | None = None,
    ) -> None:
        self._vectors_ND = vectors_ND
        self._main = main
        self._aside_N = aside_N
        self._side_MD = np.zeros((side_capacity, vectors_ND.shape[1]), np.float32)
        self._side_rows_M = np.full(side_capacity, NO_ROW, np.int64)
        self._side_place: dict[int, int] = {}
        own = [] if own_rows_M is None else own_rows_M.tolist()
        self._num_own = len(own)
        self._side_MD[: len(own)], self._side_rows_M[: len(own)] = vectors_ND[own], own
        self._side_place.update(zip(own, range(len(own)), strict=True))
        # Rows that only the lists have.
        self._num_main = len(main) - sum(row < len(main) for row in own)

    @classmethod
    def build(cls, vectors_ND: Float32, plan: IndexPlan, *, side_capacity: int = 2048) -> Self:
        """Return an index over unit vectors; raises ValueError for a plan of other vectors."""
        if vectors_ND.ndim != 2:  # noqa: PLR2004
            raise ValueError(f"item vectors of shape {vectors_ND.shape}, not (items, dimensions)")
        vectors_ND = np.ascontiguousarray(vectors_ND, np.float32)
        main = Lists(vectors_ND, plan) if plan.num_lists else _All(vectors_ND)
        return cls(vectors_ND, main, side_capacity=side_capacity)

    def changed(self, vectors_ND: Float32, rows_M: Int32) -> Self:
        """Return an index over `vectors_ND`: other vectors in `rows_M`, new rows after the last.

        This one stays as it is, and its newcomers its own. Only for an index that `build` made.
        Half of the side buffer is for the new rows, which must be there, and the most moved ones.
        """
        vectors_ND = np.ascontiguousarray(vectors_ND, np.float32)
        half = len(self._side_MD) // 2
        if isinstance(self._main, _All):
            return type(self).build(vectors_ND, IndexPlan(), side_capacity=2 * half)
        new_rows = np.arange(self.num_items, len(vectors_ND))
        cosine_M = np.einsum("md,md->m", self._vectors_ND[rows_M], vectors_ND[rows_M])
        order_M = np.argsort(cosine_M, kind="stable")[: max(0, half - len(new_rows))]
        far_rows = rows_M[order_M[cosine_M[order_M] < _FAR]]
        aside_N = np.zeros(self.num_items, np.bool_)
        aside_N[far_rows] = True
        own_rows_M = np.concatenate([new_rows, far_rows])
        return type(self)(
            vectors_ND,
            self._main,
            side_capacity=half + max(half, len(own_rows_M)),
            aside_N=aside_N,
            own_rows_M=own_rows_M,
        )

    @property
    def num_items(self) -> int:
        """Items of the version."""
        return len(self._vectors_ND)

    @property
    def num_side(self) -> int:
        """Rows in the side buffer: newcomers, and a delta's new and far moved rows."""
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
        newcomers_MD = self._side_MD[self._num_own : self.num_side]
        exact_BX = np.concatenate(
            [queries_BD @ self._vectors_ND.T, queries_BD @ newcomers_MD.T], axis=1
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
        scores_BK, rows_BK = self._main.search(queries_BD, k, self._vectors_ND, self._aside_N)
        if not self._num_main:
            return scores_BK, rows_BK
        short_B = rows_BK[:, min(k, self._num_main) - 1] == NO_ROW
        if short_B.any():
            # The visited lists held fewer than k items: visit all of them, for these queries only.
            wanted = k + len(self._main) - self._num_main
            found = self._main.search(
                *(queries_BD[short_B], wanted, self._vectors_ND, self._aside_N), everywhere=True
            )
            scores_BK[short_B], rows_BK[short_B] = (columns_BK[:, :k] for columns_BK in found)
        return scores_BK, rows_BK


class _All:
    """Every item is compared with every query."""

    def __init__(self, vectors_ND: Float32) -> None:
        self._index = faiss.IndexFlatIP(vectors_ND.shape[1])
        self._index.add(vectors_ND)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(
        self,
        queries_BD: Float32,
        k: int,
        _vectors_ND: Float32,
        _aside_N: Bool,
        *,
        everywhere: bool = False,
    ) -> tuple[Float32, Int64]:
        found: tuple[Float32, Int64] = self._index.search(queries_BD, k)
        return found
