"""Predictions sorted into slices: by the target's popularity, its age, its place in the session.

Shapes: P predictions, I items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from evaluation.metrics import Accuracy, Int64, accuracy
from evaluation.recorded import Recorded

_HOUR_MS: Final = 3_600_000
_DECILES: Final = 10
_AGES: Final = {"under 1 hour": 1, "under 1 day": 24, "under 7 days": 168}
_FIRST, _OLDER, _NEVER = "first click", "7 days and more", "no click before"
_POSITIONS: Final = {"1": 1, "2": 2, "3": 3, "4 to 5": 5, "6 to 10": 10, "11 to 20": 20}
_LATE: Final = "21 and more"


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice's name and figures."""

    label: str
    accuracy: Accuracy


def slices(recorded: Recorded, points_P: Int64, ranks_P: Int64) -> Mapping[str, list[Slice]]:
    """Return the slices that hold predictions, by dimension.

    `popularity`: tenths of the items by clicks before the split, 10 the most clicked; items with
    equally many clicks share one. `item_age`: time since the item's first click of the log.
    `session_position`: earlier clicks in the session.
    """
    return {
        "popularity": _cut(ranks_P, *_by_popularity(recorded, points_P)),
        "item_age": _cut(ranks_P, *_by_age(recorded, points_P)),
        "session_position": _cut(ranks_P, *_by_position(recorded, points_P)),
    }


def _cut(ranks_P: Int64, labels: Sequence[str], code_P: Int64) -> list[Slice]:
    parts = [ranks_P[code_P == code] for code in range(len(labels))]
    return [
        Slice(label, accuracy(part)) for label, part in zip(labels, parts, strict=True) if len(part)
    ]


def _by_popularity(recorded: Recorded, points_P: Int64) -> tuple[Sequence[str], Int64]:
    clicks_I = recorded.clicks_before_I
    known = np.sort(clicks_I[clicks_I > 0])
    fewer_I = np.searchsorted(known, clicks_I, side="left")
    up_to_I = np.searchsorted(known, clicks_I, side="right")
    tenth_I = np.minimum(_DECILES * (fewer_I + up_to_I) // (2 * len(known)), _DECILES - 1)
    code_I = np.where(clicks_I > 0, tenth_I + 1, 0)
    labels = [_NEVER, *map(str, range(1, _DECILES + 1))]
    return labels, code_I[recorded.item_F[points_P]]


def _by_age(recorded: Recorded, points_P: Int64) -> tuple[Sequence[str], Int64]:
    first_I = np.unique(recorded.item_F, return_index=True)[1]
    first_P = first_I[recorded.item_F[points_P]]
    age_P = recorded.time_F[points_P] - recorded.time_F[first_P]
    edges = np.array([_HOUR_MS * hours for hours in _AGES.values()])
    code_P = 1 + np.searchsorted(edges, age_P, side="right")
    return [_FIRST, *_AGES, _OLDER], np.where(first_P == points_P, 0, code_P)


def _by_position(recorded: Recorded, points_P: Int64) -> tuple[Sequence[str], Int64]:
    edges = np.array(list(_POSITIONS.values()))
    code_P = np.searchsorted(edges, recorded.position_F[points_P], side="left")
    return [*_POSITIONS, _LATE], code_P.astype(np.int64)
