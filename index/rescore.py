"""Scores what a search by code or in older vectors found by the vectors of today; knows no FAISS.

Compiled. Shapes: B queries, C found rows, D dimensions, N items.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.compiled import compiled

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]
Int64 = NDArray[np.int64]

NO_ROW: Final = -1


@compiled
def rescore(
    queries_BD: Float32, vectors_ND: Float32, aside_N: Bool, scores_BC: Float32, rows_BC: Int64
) -> None:
    """Score rows by `vectors_ND` in place, unsorted; those set aside become NO_ROW.

    NO_ROW has the score -inf. Rows beyond `aside_N` are not aside.
    """
    for b in range(rows_BC.shape[0]):
        for c in range(rows_BC.shape[1]):
            row = rows_BC[b, c]
            if row >= 0 and row < len(aside_N) and aside_N[row]:
                row = rows_BC[b, c] = NO_ROW
            if row < 0:
                scores_BC[b, c] = -np.inf
                continue
            total = np.float32(0.0)
            for d in range(queries_BD.shape[1]):
                total += queries_BD[b, d] * vectors_ND[row, d]
            scores_BC[b, c] = total
