"""Candidates of all channels in the learnt order; knows sessions as rings of rows, no items.

Shapes: B sessions, R ring, D item vector, C candidates near the query, T candidates in order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np

from index.candidates import FEATURES, CandidateMaker, Found, Near
from index.click_memory import ClickMemory, Columns
from model.bundle import Bundle, BundleError, RecentClicks
from model.ranker import RankerWeights, rank_candidates
from worker.sessions import EMPTY
from worker.shown import Shown

Array = np.ndarray[Any, np.dtype[Any]]

# Room for the clicks of deltas, some minutes of a busy shop; beyond it the oldest clicks leave.
_SPARE_CLICKS: Final = 1 << 17
_BLOCK: Final = 32  # sessions: their features, 33 KiB each, stay in the cache until they are read
_GROWTH: Final = 1.125  # each growth of the rows makes the work space anew, so not every minute


class Ordered(NamedTuple):
    """Codes best first and EMPTY-padded, their scores (logits), and the channels as bits."""

    codes_BT: Array
    scores_BT: Array
    sources_BT: Array


@dataclass(frozen=True, slots=True)
class Fusion:
    """What a version knows beside its vectors: the latest clicks and how to weigh channels.

    A bundle and its deltas share the counts of what was shown, and one memory. That holds the
    clicks of the version that `enter` was called for last: an earlier one of them must not be
    asked any more.
    """

    maker: CandidateMaker
    weights: RankerWeights
    vectors_ND: Array
    temperature: float
    clicks: RecentClicks
    shown: Shown

    @classmethod
    def of(cls, bundle: Bundle) -> Fusion | None:
        """Return a version's fusion, None where it has none to give.

        Raises BundleError `features` for a ranker of features that this release does not make.
        """
        if bundle.ranker is None:
            return None
        if bundle.manifest.features != FEATURES:
            raise BundleError("features", "the ranker weighs other features than this release has")
        num_clicks = len(bundle.clicks.rows_E) + _SPARE_CLICKS
        memory = ClickMemory(capacity=num_clicks, num_items=len(bundle.catalogue))
        memory.extend(Columns(*bundle.clicks))
        return cls(
            *(CandidateMaker(memory, bundle.manifest.channels), bundle.ranker, bundle.vectors_ND),
            temperature=bundle.manifest.temperature,
            clicks=bundle.clicks,
            shown=Shown(len(bundle.catalogue)),
        )

    def changed(self, joined: Bundle) -> Fusion:
        """Return the fusion of a delta of this bundle; `joined` begins with this bundle's clicks.

        The memory stays as it is until the version enters.
        """
        return replace(self, vectors_ND=joined.vectors_ND, clicks=joined.clicks)

    def enter(self) -> None:
        """Add the clicks that the memory does not have yet; for the thread that asks it."""
        memory = self.maker.memory
        if memory.num_items < len(self.vectors_ND):
            memory.reach(int(_GROWTH * len(self.vectors_ND)))
        self.shown.reach(len(self.vectors_ND))
        # The memory numbers the clicks of a bundle and its deltas from 0.
        memory.extend(Columns(*self.clicks.since(memory.num_added)))

    @property
    def by_vector(self) -> bool:
        """Whether the search by vector brings candidates."""
        return self.maker.by_vector

    def order(
        self, rings_BR: Array, queries_BD: Array, near: tuple[Array, Array], *, session_items: bool
    ) -> Ordered:
        """Return the candidates of each session in order; `near` is (cosines, codes) of a search.

        `rings_BR` is oldest first. A session without a row of this version has no candidate; of
        `near` nothing is read unless `by_vector`.
        """
        parts = []
        for start in range(0, max(len(rings_BR), 1), _BLOCK):
            block = slice(start, start + _BLOCK)
            few = near[0][block], near[1][block]
            found = self.find(rings_BR[block], queries_BD[block], few, session_items=session_items)
            parts.append(_ordered(self.weights, found))
        return Ordered(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def find(
        self, rings_BR: Array, queries_BD: Array, near: tuple[Array, Array], *, session_items: bool
    ) -> Found:
        """Return the candidates of each session, with their features, in no order."""
        cosines_BC, codes_BC = near
        return self.maker.find(
            _newest_first(rings_BR),
            Near(codes_BC, cosines_BC, queries_BD, self.vectors_ND, self.temperature),
            session_items=session_items,
        )


def _ordered(weights: RankerWeights, found: Found) -> Ordered:
    places_BT, scores_BT = rank_candidates(weights, found.features_BCF, found.num_B)
    at_BT = np.maximum(places_BT, 0)
    codes_BT = np.take_along_axis(found.codes_BC, at_BT, axis=1)
    return Ordered(
        np.where(places_BT < 0, EMPTY, codes_BT),
        scores_BT,
        np.take_along_axis(found.sources_BC, at_BT, axis=1),
    )


def _newest_first(rings_BR: Array) -> Array:
    at_BR = (rings_BR != EMPTY).sum(axis=1)[:, None] - 1 - np.arange(rings_BR.shape[1])
    turned_BR = np.take_along_axis(rings_BR, np.maximum(at_BR, 0), axis=1)
    return np.where(at_BR < 0, EMPTY, turned_BR).astype(np.int32)
