"""Sequential rules: which items came after this one, read from the latest times it was clicked.

Counts of the very next item (Markov), of the next ten weighed by 1/distance (Ludewig & Jannach,
UMUAI 2018), and of the next item where the click before was the same as well. Knows rows only.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.click_memory import Held, Links
from index.compiled import compiled
from index.neighbours import Scores, add

Int64 = NDArray[np.int64]

MAX_OCCURRENCES: Final = 1_000
_MAX_STEPS: Final = 10


@compiled
def rule_scores(
    held: Held, last: int, before: int, after: Scores, next_: Scores, pair: Scores
) -> tuple[int, int, int]:
    """Score what followed `last`; `before` is the item clicked before it, negative without one.

    Returns how many rows have a score: within ten clicks, next, and next after both items.
    """
    links = held.links
    capacity = len(links.item_E)
    oldest = max(0, held.num_added - capacity)
    num_after = num_next = num_pair = 0
    number = held.facts.newest_N[last]
    for _ in range(MAX_OCCURRENCES):
        if number < oldest:
            break
        place = number % capacity
        step, there = 0, place
        at = number
        while links.to_next_E[there] != 0 and step < _MAX_STEPS:
            at += links.to_next_E[there]
            there = at % capacity
            step += 1
            row = links.item_E[there]
            num_after = add(after, num_after, row, 1.0 / step)
            if step == 1:
                num_next = add(next_, num_next, row, 1.0)
                if before >= 0 and _came_after(links, number, oldest, before):
                    num_pair = add(pair, num_pair, row, 1.0)
        if links.to_same_item_E[place] == 0:
            break
        number -= links.to_same_item_E[place]
    return num_after, num_next, num_pair


@compiled
def _came_after(links: Links, number: int, oldest: int, before: int) -> bool:
    capacity = len(links.item_E)
    distance = links.to_before_E[number % capacity]
    if distance == 0 or number - distance < oldest:
        return False
    return bool(links.item_E[(number - distance) % capacity] == before)
