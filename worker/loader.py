"""One announced version from the store to what can serve: checked, indexed, warmed up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from index.candidates import RING
from index.item_index import IndexPlan, ItemIndex
from model.bundle import Bundle, BundleError, load
from model.delta import Delta, load_delta
from model.golden import check_golden
from model.store import Store
from stream.announcements import stored_version
from stream.messages import ModelAnnouncement
from worker.sessions import EMPTY
from worker.version import ServingVersion, delta_version, serving_version

_WARM_UP_QUERIES = 32
_NUMBERS_KEPT = 100  # a version that was restored after so many others is a new one to sessions


class VersionLoader:
    """Turn an announcement into a version that can serve; raises BundleError for its refusal.

    Everything that is dear happens here, on the follower's thread: reading and checking the files,
    the index, a first call of each step of the hot path.
    """

    def __init__(self, store_url: str, *, max_bytes: int, num_popular: int) -> None:
        self._store_url = store_url
        self._store = Store(store_url)
        self._max_bytes = max_bytes
        self._num_popular = num_popular
        self._numbers: dict[str, int] = {}

    def __call__(
        self, announcement: ModelAnnouncement, parent: ServingVersion | None = None
    ) -> ServingVersion:
        """Load the announced version; of a delta `parent` is the bundle it was made for."""
        self._require_own_store(announcement)
        if parent is not None:
            delta = _delta(announcement, parent.bundle, self._max_bytes)
            return delta_version(parent, delta, self._number(announcement.version))
        bundle = _bundle(announcement, self._max_bytes)
        check_golden(bundle)
        facts = bundle.manifest.index
        plan = IndexPlan(
            bundle.centroids_CD, bundle.list_numbers_N, nprobe=facts.nprobe, recall=facts.recall
        )
        index = ItemIndex.build(bundle.vectors_ND, plan)
        number = self._number(bundle.manifest.version)
        version = serving_version(bundle, index, number, self._num_popular)
        _warm_up(version)
        return replace(version, announcement=announcement)

    def _number(self, name: str) -> int:
        """Return the number of a version: the same again when it is restored.

        Sessions that no other version touched meanwhile go on with their states.
        """
        if name not in self._numbers:
            self._numbers[name] = max(self._numbers.values(), default=0) + 1
            if len(self._numbers) > _NUMBERS_KEPT:
                self._numbers.pop(next(iter(self._numbers)))
        return self._numbers[name]

    def _require_own_store(self, announcement: ModelAnnouncement) -> None:
        """Open no address only because somebody could write it to the models topic."""
        try:
            expected = self._store.uri(announcement.name, stored_version(announcement))
        except ValueError as error:
            raise BundleError("store", str(error)) from error
        if announcement.uri != expected:
            raise BundleError(
                "store",
                f"{announcement.uri} is not this version in store.url = {self._store_url}: "
                "give worker and trainer the same store",
            )


def _bundle(announcement: ModelAnnouncement, max_bytes: int) -> Bundle:
    bundle = load(announcement.uri, announcement.manifest_sha256, max_bytes=max_bytes)
    named = (bundle.manifest.name, bundle.manifest.version)
    if named != (announcement.name, stored_version(announcement)):
        raise BundleError("manifest", f"{named} was announced as another version")
    return bundle


def _delta(announcement: ModelAnnouncement, parent: Bundle, max_bytes: int) -> Delta:
    delta = load_delta(
        announcement.uri,
        parent,
        max_bytes=max_bytes,
        manifest_sha256=announcement.manifest_sha256,
    )
    if delta.manifest.version != announcement.version:
        raise BundleError("manifest", f"{delta.manifest.version} was announced as another version")
    return delta


def _warm_up(version: ServingVersion) -> None:
    vectors_BD = version.bundle.vectors_ND[:_WARM_UP_QUERIES]
    encoder = version.bundle.encoder
    with torch.inference_mode():
        items_BD = torch.from_numpy(np.ascontiguousarray(vectors_BD))
        hidden_BH = encoder.step(encoder.init_state(len(vectors_BD)), items_BD)
        query_BD = encoder.query(hidden_BH, items_BD)
    near = version.index.search(query_BD.numpy(), 1)
    if (near[1] < 0).any():
        raise BundleError("index", "a query near an item finds no item")
    if version.fusion is not None:  # a machine's first call compiles for some seconds
        rings_BR = np.full((len(vectors_BD), RING), EMPTY)
        rings_BR[:, 0] = np.arange(len(vectors_BD))
        version.fusion.order(rings_BR, query_BD.numpy(), near, session_items=True)
