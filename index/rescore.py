"""Corrects what a search in older vectors found by the vectors of today; compiled, knows no FAISS.

Shapes: B queries, C found rows, D dimensions, N items.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.compiled import compiled

Float32 = NDArray[np.float32]
Int8 = NDArray[np.int8]
Int64 = NDArray[np.int64]

NO_ROW: Final = -1
SAME, MOVED, ASIDE = 0, 1, 2  # a row's vector: as it was, another, another and searched elsewhere


@compiled
def rescore(
    queries_BD: Float32, vectors_ND: Float32, state_N: Int8, scores_BC: Float32, rows_BC: Int64
) -> None:
    """Score moved rows by `vectors_ND` and turn those set aside into NO_ROW, in place, unsorted.

    Rows that are the same keep their score: a product of equal vectors is not made twice.
    """
    for b in range(rows_BC.shape[0]):
        for c in range(rows_BC.shape[1]):
            row = rows_BC[b, c]
            if row < 0 or state_N[row] == SAME:
                continue
            if state_N[row] == ASIDE:
                rows_BC[b, c] = NO_ROW
            else:
                total = np.float32(0.0)
                for d in range(queries_BD.shape[1]):
                    total += queries_BD[b, d] * vectors_ND[row, d]
                scores_BC[b, c] = total
