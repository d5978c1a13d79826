"""One published model version as the worker serves it: everything behind one reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from index.item_index import ItemIndex
from model.bundle import Bundle
from model.delta import Delta, join
from stream.messages import ModelAnnouncement
from worker.fusion import Fusion

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class ServingVersion:
    """A loaded bundle, or a delta joined to its bundle, with its index.

    `number` counts the versions of this process from 1; sessions carry it, so that a state of
    another version is never taken for one of this. `popular_rows_P` are rows by falling popularity,
    `popular_scores_P` their shares of all clicks. Without `fusion` the search by vector decides.
    `announcement` says that it is to serve; there is none where nobody announced it.
    """

    number: int
    bundle: Bundle
    index: ItemIndex
    popular_rows_P: Array
    popular_scores_P: Array
    fusion: Fusion | None
    announcement: ModelAnnouncement | None = None

    @property
    def name(self) -> str:
        """The published version's name, as in every recommendation."""
        return self.bundle.manifest.version

    @property
    def encoder_version(self) -> str:
        """The encoder's version, as in every session record."""
        return self.bundle.manifest.encoder_version

    def enter(self, before: ServingVersion | None = None) -> None:
        """Prepare to serve, in the thread that serves; the version before must not any more."""
        if self.fusion is None:
            return
        self.fusion.enter()
        last = before.fusion if before is not None else None
        if before is None or last is None or last.shown is self.fusion.shown:
            return
        if self.bundle.catalogue.extends(before.bundle.catalogue):
            self.fusion.shown.go_on(last.shown)


def serving_version(
    bundle: Bundle, index: ItemIndex, number: int, num_popular: int
) -> ServingVersion:
    """Join a bundle and its index; ranks the `num_popular` most popular rows.

    Raises BundleError for a ranker of another release.
    """
    counts_N = bundle.popularity_N
    count = min(num_popular, len(counts_N))
    order = np.argsort(-counts_N, kind="stable")[:count]
    shares = counts_N[order] / max(float(counts_N.sum()), 1.0)
    popular = order.astype(np.int64), shares.astype(np.float32)
    return ServingVersion(number, bundle, index, *popular, Fusion.of(bundle))


def delta_version(parent: ServingVersion, delta: Delta, number: int) -> ServingVersion:
    """Join a delta to its bundle's version, which goes on serving until this one enters.

    Both share the index of FAISS, the memory of clicks and the popular rows. Raises BundleError.
    """
    joined = join(parent.bundle, delta)
    return replace(
        parent,
        number=number,
        bundle=joined,
        index=parent.index.changed(joined.vectors_ND, delta.rows_M),
        fusion=parent.fusion.changed(joined) if parent.fusion is not None else None,
    )
