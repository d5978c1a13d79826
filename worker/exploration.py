"""A place in some lists for an item that few have been shown; knows arrays only, and no chance.

An item that is never shown cannot be clicked, and what was never clicked is hardly ever shown. One
place in some lists costs next to nothing: the last places hold the fewest of the hits. Shapes: B
clicks, T candidates in order, X excluded codes, K items of a list.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from index.features import EXPLORED
from worker.fusion import Ordered
from worker.ranking import Lists
from worker.sessions import EMPTY
from worker.shown import Shown

Array = np.ndarray[Any, np.dtype[Any]]

_DIGESTS: Final = 2.0**32


def chosen(digest_B: Array, share: float) -> Array:
    """Return which of the clicks get such a list: a `share` of them, by their sessions' digests.

    A digest is as good as a random number, and a click that is answered again has it again, though
    another item may have been shown least by then.
    """
    return np.asarray(digest_B < share * _DIGESTS)


def explore(
    lists: Lists, found: Ordered, excluded_BX: Array, chosen_B: Array, shown: Shown
) -> None:
    """Give the last place of the chosen lists to their least shown candidate, in place.

    Of equally seldom ones the likeliest. A list of one, or one that is not full of candidates, has
    no such place. What the lists show is counted.
    """
    shown.add(lists.codes_BK)
    k = lists.codes_BK.shape[1]
    full_B = (lists.popular_from_B == k) & (k > 1)
    for b in np.flatnonzero(chosen_B & full_B).tolist():
        taken = np.concatenate([lists.codes_BK[b], excluded_BX[b], [EMPTY]])
        free_T = np.flatnonzero(~np.isin(found.codes_BT[b], taken))
        if len(free_T):
            place = free_T[np.argmin(shown.of(found.codes_BT[b, free_T]))]
            shown.add(found.codes_BT[b, place : place + 1])
            lists.codes_BK[b, -1] = found.codes_BT[b, place]
            lists.scores_BK[b, -1] = found.scores_BT[b, place]
            lists.sources_BK[b, -1] = found.sources_BT[b, place] | EXPLORED
