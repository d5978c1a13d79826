"""Lists with less of the same: likely items that are unlike the rest of a list; knows rows only.

Greedy maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998) on probabilities, so that a
list gives up what it can best do without. Compiled. Shapes: B lists, T candidates of each, best
first, K chosen, N items, D dimensions.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.compiled import compiled

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

POOL: Final = 64  # candidates that a list is chosen from


@compiled
def diverse_places(
    codes_BT: Int64, logits_BT: Float32, num_B: Int64, vectors_ND: Float32, weight: float, k: int
) -> Int64:
    """Return the places of `k` candidates of each list, ascending, -1 beyond the last.

    Each step takes the candidate with the highest probability - weight / k * likeness, of equal
    ones the earlier. Probabilities are the softmax of the list's logits, likeness is the mean
    cosine to what was taken before. Codes below 0 have no vector and are like nothing. Only the
    first `num_B` candidates are read.
    """
    places_BK = np.full((len(codes_BT), k), -1, np.int64)
    for b in range(len(codes_BT)):
        num = min(k, num_B[b])
        if num > 0:
            codes_T = codes_BT[b, : num_B[b]]
            chance_T = _softmax(logits_BT[b, : num_B[b]])
            taken_T = _take(codes_T, chance_T, vectors_ND, weight / k, num)
            places_BK[b, :num] = np.flatnonzero(taken_T)
    return places_BK


@compiled
def _softmax(logits_T: Float32) -> Float32:
    shares_T = np.exp(logits_T - logits_T.max())
    return np.asarray(shares_T / shares_T.sum())


@compiled
def _take(
    codes_T: Int64, chance_T: Float32, vectors_ND: Float32, weight: float, num: int
) -> NDArray[np.bool_]:
    """Mark the `num` candidates that are chosen."""
    taken_T = np.zeros(len(codes_T), np.bool_)
    cosines_T = np.zeros(len(codes_T), np.float32)  # summed over what was taken
    for step in range(num):
        best, best_gain = -1, 0.0
        for t in range(len(codes_T)):
            gain = chance_T[t] - weight * cosines_T[t] / max(step, 1)
            if not taken_T[t] and (best < 0 or gain > best_gain):
                best, best_gain = t, gain
        taken_T[best] = True
        if codes_T[best] >= 0:
            _add_cosines(codes_T, vectors_ND[codes_T[best]], taken_T, vectors_ND, cosines_T)
    return taken_T


@compiled
def _add_cosines(
    codes_T: Int64,
    new_D: Float32,
    taken_T: NDArray[np.bool_],
    vectors_ND: Float32,
    cosines_T: Float32,
) -> None:
    for t in range(len(codes_T)):
        if not taken_T[t] and codes_T[t] >= 0:
            other_D = vectors_ND[codes_T[t]]
            cosine = np.float32(0.0)
            for d in range(len(new_D)):
                cosine += new_D[d] * other_D[d]
            cosines_T[t] += cosine
