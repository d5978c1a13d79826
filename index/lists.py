"""Lists of items near centroids, as short codes, and the true scores of what a search finds there.

Product quantisation (Jégou et al., PAMI 2011) whose codes are compared in registers (André et al.,
VLDB 2015), as FAISS does it; the best by code are scored by their vectors. Knows no item ids.
Shapes: N items, D dimensions, C lists, Q queries, K best items, F found by code.
"""

from dataclasses import dataclass
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from index.merge import best
from index.rescore import rescore

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

_BITS: Final = 4  # what fits a register
_MOST_CODES: Final = 64  # of an item: one for every two of 128 dimensions
_LEARNT_FROM: Final = 20_000  # items: 16 values of each code are learnt from fewer
# Beyond K: the K best by vector are nearly always among so many by code, and rows that a delta has
# moved change places.
_SPARE: Final = 48
NONE_ASIDE: Final = np.zeros(0, np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class IndexPlan:
    """Lists and how many of them a query visits; without lists every search is exact."""

    centroids_CD: Float32 | None = None
    list_numbers_N: Int32 | None = None
    nprobe: int = 0
    recall: float = 1.0

    @property
    def num_lists(self) -> int:
        """Number of lists, 0 when the search is exact."""
        return 0 if self.centroids_CD is None else len(self.centroids_CD)


class Lists:
    """The items of a plan in their lists; 36 bytes an item at 128 dimensions.

    Raises ValueError for a plan that does not fit: FAISS would write outside its memory.
    """

    def __init__(self, vectors_ND: Float32, plan: IndexPlan) -> None:
        vectors_ND = np.ascontiguousarray(vectors_ND, np.float32)
        centroids_CD, numbers_N = _checked(plan, *vectors_ND.shape)
        # FAISS keeps a bare pointer to the quantiser.
        self._quantiser = faiss.IndexFlatIP(vectors_ND.shape[1])
        self._quantiser.add(centroids_CD)
        self._index = self._filled(vectors_ND, numbers_N)
        self.probe(plan.nprobe)

    def __len__(self) -> int:
        """Number of items."""
        return int(self._index.ntotal)

    def probe(self, nprobe: int) -> None:
        """Visit so many lists from now on."""
        self._index.nprobe = min(max(nprobe, 1), self._index.nlist)

    def search(
        self,
        queries_QD: Float32,
        k: int,
        vectors_ND: Float32,
        aside_N: Bool,
        *,
        everywhere: bool = False,
    ) -> tuple[Float32, Int64]:
        """Return the best `k` by `vectors_ND` of those that are near by code, best first.

        `vectors_ND` may have moved since. Rows that `aside_N` marks are left out; padded with
        (-inf, -1). `everywhere` visits every list.
        """
        params = None
        if everywhere:
            params = faiss.SearchParametersIVF()
            params.nprobe = self._index.nlist
        scores_QF, rows_QF = self._index.search(queries_QD, k + _SPARE, params=params)
        rescore(queries_QD, vectors_ND, aside_N, scores_QF, rows_QF)
        return best(scores_QF, rows_QF, k)

    def _filled(self, vectors_ND: Float32, numbers_N: Int64) -> Any:
        num_items, dim = vectors_ND.shape
        num_codes = max(codes for codes in range(1, _MOST_CODES + 1) if dim % codes == 0)
        lists: Any = faiss.IndexIVFPQ(
            *(self._quantiser, dim, self._quantiser.ntotal, num_codes, _BITS),
            faiss.METRIC_INNER_PRODUCT,
        )
        lists.by_residual = False  # one table of distances a query, not one a list
        chosen = np.random.default_rng(0).permutation(num_items)[:_LEARNT_FROM]
        lists.pq.cp.min_points_per_centroid = 1  # fewer than usual is meant, not worth a warning
        lists.pq.train(vectors_ND[np.resize(chosen, max(len(chosen), 1 << _BITS))])
        lists.is_trained = True
        lists.add_core(num_items, faiss.swig_ptr(vectors_ND), None, faiss.swig_ptr(numbers_N))
        return faiss.IndexIVFPQFastScan(lists)


def _checked(plan: IndexPlan, num_items: int, dim: int) -> tuple[Float32, Int64]:
    centroids_CD, list_numbers_N = plan.centroids_CD, plan.list_numbers_N
    if centroids_CD is None or list_numbers_N is None or list_numbers_N.shape != (num_items,):
        raise ValueError("the plan does not have one list number per item")
    if centroids_CD.shape[1:] != (dim,):
        raise ValueError(f"centroids of shape {centroids_CD.shape} for {dim} dimensions")
    if num_items and not 0 <= list_numbers_N.min() <= list_numbers_N.max() < len(centroids_CD):
        raise ValueError("a list number names no centroid")
    return (
        np.ascontiguousarray(centroids_CD, np.float32),
        np.ascontiguousarray(list_numbers_N, np.int64),
    )
