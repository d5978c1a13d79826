"""Each channel's own lists, before they are joined; knows no log and no metric.

Shapes: B clicks, C candidates, X excluded codes, K items of a list.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.recommender import Advanced
from worker.sessions import EMPTY
from worker.settings import RankingSettings
from worker.version import ServingVersion

Array = np.ndarray[Any, np.dtype[Any]]


def channels(
    version: ServingVersion, advanced: Advanced, ranking: RankingSettings
) -> dict[str, Array]:
    """Return codes_BK of the best `ranking.k` by each channel alone, padded with EMPTY.

    What the lists leave out these leave out too; popularity fills none of them up.
    """
    excluded_BX = advanced.rings_BR if ranking.exclude == "session" else advanced.rings_BR[:, :0]
    _, near_BC = version.index.search(advanced.queries_BD, ranking.k + excluded_BX.shape[1])
    near_BC[~advanced.personal_B] = EMPTY
    return {"rnn": _best(near_BC, excluded_BX, ranking.k)}


def _best(codes_BC: Array, excluded_BX: Array, k: int) -> Array:
    """Return the first `k` codes that are not excluded."""
    gone_BC = (codes_BC[:, :, None] == excluded_BX[:, None, :]).any(axis=2)
    order_BK = np.argsort(gone_BC, axis=1, kind="stable")[:, :k]
    codes_BK = np.take_along_axis(codes_BC, order_BK, axis=1)
    return np.where(np.take_along_axis(gone_BC, order_BK, axis=1), EMPTY, codes_BK)
