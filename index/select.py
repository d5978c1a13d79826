"""The largest of many numbers, without sorting them; compiled.

Shapes: M numbers, K largest.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.compiled import compiled

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]

_SHIFT: Final = 20  # of a float's 32 bits: its sign, exponent and three of the fraction are left
_BUCKETS: Final = 1 << 11


@compiled
def largest(values_M: Float32, k: int) -> Int32:
    """Return the places of the `k` largest values, none below 0, in no order; all if fewer.

    Of equal values the earlier. A float that is not negative orders as its bits do: their first
    eleven give the bucket of the k-th value in one pass, and only that bucket is looked at again.
    """
    num = len(values_M)
    if num <= k:
        return np.arange(num, dtype=np.int32)
    bits_M = values_M.view(np.int32)
    count = np.zeros(_BUCKETS, np.int32)
    for i in range(num):
        count[bits_M[i] >> _SHIFT] += 1
    bucket, above = _BUCKETS - 1, 0
    while above + count[bucket] < k:
        above += count[bucket]
        bucket -= 1
    places_K = np.empty(k, np.int32)
    edge_P = np.empty(count[bucket], np.int32)
    taken = at_edge = 0
    for i in range(num):
        here = bits_M[i] >> _SHIFT
        if here > bucket:
            places_K[taken] = i
            taken += 1
        elif here == bucket:
            edge_P[at_edge] = i
            at_edge += 1
    order_P = np.argsort(-values_M[edge_P], kind="mergesort")
    for i in range(k - taken):
        places_K[taken + i] = edge_P[order_P[i]]
    return places_K
