"""Each channel's own lists, before they are joined; knows no log and no metric.

Shapes: B clicks, C candidates, X excluded codes, K items of a list.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from index.candidates import FEATURES, Found
from index.features import NEIGHBOURS, POPULAR, RULES
from worker.recommender import Advanced
from worker.sessions import EMPTY
from worker.settings import RankingSettings
from worker.version import ServingVersion

Array = np.ndarray[Any, np.dtype[Any]]

_OTHERS: Final = (
    ("knn", NEIGHBOURS, "neighbours"),
    ("rules", RULES, "after"),
    ("popular", POPULAR, "short_count"),
)


def channels(
    version: ServingVersion, advanced: Advanced, ranking: RankingSettings
) -> dict[str, Array]:
    """Return codes_BK of the best `ranking.k` by each channel alone, padded with EMPTY.

    Channels that the version leaves out have no list. What the lists leave out these leave out
    too; popularity fills none of them up.
    """
    excluded_BX = advanced.rings_BR if ranking.exclude == "session" else advanced.rings_BR[:, :0]
    scores_BC, near_BC = version.index.search(advanced.queries_BD, ranking.k + excluded_BX.shape[1])
    near_BC[~advanced.personal_B] = EMPTY
    lists = {"rnn": _best(near_BC, excluded_BX, ranking.k)}
    if version.fusion is not None:
        found = version.fusion.find(
            *(advanced.rings_BR, advanced.queries_BD, (scores_BC, near_BC)),
            session_items=ranking.exclude != "session",
        )
        for name, source, feature in _OTHERS:
            lists[name] = _brought_by(found, source, feature, ranking.k)
    on = version.bundle.manifest.channels
    return {name: list_BK for name, list_BK in lists.items() if name in on}


def _brought_by(found: Found, source: int, feature: str, k: int) -> Array:
    """Return the candidates of one channel by the feature that is its score."""
    score_BC = found.features_BCF[:, :, FEATURES.index(feature)]
    score_BC = np.where(found.sources_BC & source, score_BC, -np.inf)
    order_BK = np.argsort(-score_BC, axis=1, kind="stable")[:, :k]
    codes_BK = np.take_along_axis(found.codes_BC, order_BK, axis=1)
    return np.where(np.isneginf(np.take_along_axis(score_BC, order_BK, axis=1)), EMPTY, codes_BK)


def _best(codes_BC: Array, excluded_BX: Array, k: int) -> Array:
    """Return the first `k` codes that are not excluded."""
    gone_BC = (codes_BC[:, :, None] == excluded_BX[:, None, :]).any(axis=2)
    order_BK = np.argsort(gone_BC, axis=1, kind="stable")[:, :k]
    codes_BK = np.take_along_axis(codes_BC, order_BK, axis=1)
    return np.where(np.take_along_axis(gone_BC, order_BK, axis=1), EMPTY, codes_BK)
