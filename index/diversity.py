"""Lists with less of the same: an item loses by being like those above it; knows rows only.

Greedy maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998) on log odds. Compiled. Shapes:
B lists, T candidates of each, best first, K chosen, N items, D dimensions.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.compiled import compiled

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

POOL: Final = 60  # candidates that a list is chosen from


@compiled
def diverse_places(
    codes_BT: Int64, logits_BT: Float32, num_B: Int64, vectors_ND: Float32, weight: float, k: int
) -> Int64:
    """Return the places of `k` candidates of each list in a diverse order, -1 beyond the last.

    Each step takes the candidate with the highest logit + log(1 - weight * likeness), of equal ones
    the earlier; likeness is the largest cosine to an item taken before, at least 0. Codes below 0
    have no vector and are like nothing. Only the first `num_B` candidates are read.
    """
    places_BK = np.full((len(codes_BT), k), -1, np.int64)
    for b in range(len(codes_BT)):
        num = num_B[b]
        like_T = np.zeros(num, np.float32)
        taken_T = np.zeros(num, np.bool_)
        for place in range(min(k, num)):
            best, best_gain = -1, 0.0
            for t in range(num):
                gain = logits_BT[b, t] + np.log(1.0 - weight * like_T[t])
                if not taken_T[t] and (best < 0 or gain > best_gain):
                    best, best_gain = t, gain
            places_BK[b, place] = best
            taken_T[best] = True
            _liken(codes_BT[b], best, taken_T, vectors_ND, like_T)
    return places_BK


@compiled
def _liken(
    codes_T: Int64, new: int, taken_T: NDArray[np.bool_], vectors_ND: Float32, like_T: Float32
) -> None:
    """Raise the likeness of what is left to the item that was taken last."""
    if codes_T[new] < 0:
        return
    new_D = vectors_ND[codes_T[new]]
    for t in range(len(like_T)):
        if not taken_T[t] and codes_T[t] >= 0:
            other_D = vectors_ND[codes_T[t]]
            cosine = np.float32(0.0)
            for d in range(len(new_D)):
                cosine += new_D[d] * other_D[d]
            like_T[t] = max(like_T[t], min(cosine, np.float32(1.0)))
