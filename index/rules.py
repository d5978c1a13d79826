"""Sequential rules: which items came after this one, read from the latest times it was clicked.

Counts of the very next item (Markov), of the next five weighed by 1/distance (Ludewig & Jannach,
UMUAI 2018), and of the next item where the click before was the same as well. Knows rows only.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.click_memory import Held, latest_clicks, place_of
from index.compiled import compiled
from index.neighbours import Scores, add

Int64 = NDArray[np.int64]

MAX_OCCURRENCES: Final = 100
_MAX_STEPS: Final = 5


@compiled
def rule_scores(
    held: Held, last: int, before: int, after: Scores, next_: Scores, pair: Scores
) -> tuple[int, int, int]:
    """Score what followed `last`; `before` is the item clicked before it, negative without one.

    Returns how many rows have a score: within five clicks, next, and next after both items.
    """
    numbers_M = latest_clicks(held, last, MAX_OCCURRENCES)
    num_pair = _add_pairs(held, numbers_M, before, pair)
    num_after = num_next = 0
    to_next_E, size = held.links.to_next_E, len(numbers_M)
    for step in range(1, _MAX_STEPS + 1):
        kept = 0
        for m in range(size):
            distance = to_next_E[place_of(held, numbers_M[m])]
            numbers_M[kept] = numbers_M[m] + distance
            kept += int(distance > 0)
        for m in range(kept):
            row = held.links.item_E[place_of(held, numbers_M[m])]
            num_after = add(after, num_after, row, 1.0 / step)
            if step == 1:
                num_next = add(next_, num_next, row, 1.0)
        size = kept
    return num_after, num_next, num_pair


@compiled
def _add_pairs(held: Held, numbers_M: Int64, before: int, pair: Scores) -> int:
    """Score what came next where `before` was clicked before; return how many rows have a score."""
    links, num = held.links, 0
    if before < 0:
        return 0
    oldest = max(0, held.num_added - len(links.item_E))
    for number in numbers_M:
        place = place_of(held, number)
        to_before, to_next = links.to_before_E[place], links.to_next_E[place]
        if to_before == 0 or to_next == 0 or number - to_before < oldest:
            continue
        if links.item_E[place_of(held, number - to_before)] == before:
            num = add(pair, num, links.item_E[place_of(held, number + to_next)], 1.0)
    return num
