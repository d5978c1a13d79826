"""A version on trial: a share of the users gets its lists, their sessions stay as they are.

Its lists are made from the last items of a session, encoded anew under its weights. So a trial
leaves nothing in a session or its changelog, and ends between two batches whatever happens to it.
Shapes: B clicks, C those of its users, R ring.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final
from zlib import crc32

import numpy as np

from stream.messages import ModelAnnouncement
from worker.guard import GuardSettings, is_worse
from worker.hits import Measured
from worker.recommender import (
    Advanced,
    Answers,
    Tried,
    encode_rings,
    make_lists,
    newest_rows,
    query,
)
from worker.sessions import EMPTY
from worker.settings import RankingSettings
from worker.version import ServingVersion

Array = np.ndarray[Any, np.dtype[Any]]

VARIANT: Final = "canary"
_UNKNOWN: Final = -2  # an item that the version has no row for, as a newcomer is
_HASHES: Final = 2.0**32


@dataclass(frozen=True, slots=True)
class Verdict:
    """What speaks against a version on trial, of lists that were made in the same time."""

    announcement: ModelAnnouncement
    rate: float
    rate_serving: float
    evaluated: int

    def __str__(self) -> str:
        return (
            f"canary: next-click hit rate {self.rate:.2%} on {self.evaluated} clicks, "
            f"{self.rate_serving:.2%} of the serving version's lists meanwhile"
        )


class Canary:
    """A loaded version, the users who get its lists, and what became of these lists.

    `maker` names its lists to the meter of hits. Raises ValueError for a version that nobody
    announced to be tried.
    """

    def __init__(self, version: ServingVersion, settings: GuardSettings, *, maker: int) -> None:
        if version.announcement is None:
            raise ValueError("a version on trial was announced")
        self.version = version
        self.maker = maker
        self._announcement = version.announcement
        self._settings = settings
        self._own, self._others = Measured(maker, 0, 0), Measured(0, 0, 0)
        self._next_look = settings.min_clicks

    def picks(self, user_id: str) -> bool:
        """Whether a user gets its lists: another share of the users in every trial."""
        number = crc32(user_id.encode(), crc32(self.version.name.encode()))
        return number < self._announcement.share * _HASHES

    def answer(
        self, answers: Answers, code_B: Array, chosen_B: Array, ranking: RankingSettings
    ) -> Answers:
        """Return the answers with lists of its own for the chosen clicks."""
        if not chosen_B.any():
            return answers
        advanced = self._seen_anew(answers.sessions, chosen_B)
        own = make_lists(advanced, code_B[chosen_B], self.version, ranking)
        lists = answers.lists.replaced(chosen_B, own)
        return replace(answers, lists=lists, tried=Tried(self.version, chosen_B, self.maker))

    def count(self, measured: list[Measured]) -> None:
        """Count what became of its lists and, beside them, of the serving version's."""
        for one in measured:
            if one.maker == self.maker:
                self._own = _sum(self._own, one)
            elif one.maker > 0:
                self._others = _sum(self._others, one)

    def verdict(self) -> Verdict | None:
        """Return what speaks against it when a look is due: the bounds are the guard's."""
        own, others, settings = self._own, self._others, self._settings
        if not settings.enabled or own.evaluated < self._next_look or not others.evaluated:
            return None
        self._next_look = own.evaluated + settings.min_clicks
        if not is_worse(own, others, settings):
            return None
        rates = own.hits / own.evaluated, others.hits / others.evaluated
        return Verdict(self._announcement, *rates, own.evaluated)

    def _seen_anew(self, sessions: Advanced, chosen_B: Array) -> Advanced:
        """Return the sessions as this version sees them: their known items, encoded by it.

        Rows mean the same items in both versions, one of which has more of them.
        """
        known = len(self.version.bundle.catalogue)
        rings_CR = sessions.rings_BR[chosen_B]
        rings_CR = np.where((rings_CR < EMPTY) | (rings_CR >= known), _UNKNOWN, rings_CR)
        newest_C = newest_rows(rings_CR)
        queries_CD = np.zeros((len(rings_CR), self.version.bundle.vectors_ND.shape[1]), np.float32)
        full_C = newest_C >= 0
        if full_C.any():
            hidden_FH = encode_rings(rings_CR[full_C], self.version)
            queries_CD[full_C] = query(hidden_FH, newest_C[full_C], self.version)
        counts = (sessions.n_B[chosen_B], sessions.digest_B[chosen_B])
        return Advanced(queries_CD, full_C, rings_CR, *counts, num_reencoded=0)


def _sum(one: Measured, other: Measured) -> Measured:
    return Measured(one.maker, one.evaluated + other.evaluated, one.hits + other.hits)
