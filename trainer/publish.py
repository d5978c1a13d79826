"""From a learner to a bundle, and from a stored bundle to its announcement; sends nothing.

Shapes: N items, D dimensions, M targets, K list length.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from index.candidates import FEATURES
from index.item_index import IndexPlan, plan
from model.bundle import (
    Bundle,
    Manifest,
    Published,
    RecentClicks,
    content_hash,
    encoder_version,
    new_version,
)
from model.catalogue import Catalogue
from model.golden import MAX_SESSIONS, golden_sessions
from model.listed import Stored
from model.manifest import DeltaManifest, GateVerdict, IndexFacts
from model.ranker import RankerWeights
from stream.messages import Gate, ModelAnnouncement
from trainer.evaluate import K
from trainer.fusion_learner import FusionLearner
from trainer.gate import Verdict
from trainer.learner import Learner, queries
from trainer.stream_learner import Frozen
from trainer.windows import Windows


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a version comes from: what its manifest says beside the model itself.

    `parent` served when it was made; `after` is the newest version that was ever announced.
    """

    name: str
    created_ms: int
    verdict: Verdict
    parent: str | None = None
    parent_index: IndexPlan | None = None
    after: str | None = None
    trained_through: dict[int, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


def build_bundle(
    learner: Learner,
    frozen: Frozen,
    recent: Windows,
    origin: Origin,
    *,
    fusion: FusionLearner,
    seed: int,
) -> Bundle:
    """Return the version that serves what the learner knows now.

    The index is planned on the queries of `recent`: recall on made-up queries does not carry over.
    """
    vectors_ND = np.ascontiguousarray(frozen.vectors_ND.numpy())
    catalogue = Catalogue(learner.items.ids)
    version = new_version(
        origin.created_ms,
        content_hash(frozen.encoder, vectors_ND, catalogue),
        after=origin.after,
    )
    queries_MD = queries(frozen.encoder, frozen.vectors_ND, recent).numpy()
    index = plan(vectors_ND, queries_MD, k=K, seed=seed, previous=origin.parent_index)
    return Bundle(
        manifest=_manifest(learner, frozen, fusion, origin, version=version, index=index),
        encoder=frozen.encoder,
        catalogue=catalogue,
        vectors_ND=vectors_ND,
        popularity_N=learner.items.counts_N.numpy().astype(np.float32),
        centroids_CD=index.centroids_CD,
        list_numbers_N=index.list_numbers_N,
        golden=golden_sessions(frozen.encoder, vectors_ND, _latest_sessions(recent)),
        clicks=RecentClicks(*fusion.memory.columns()),
        ranker=_ranker(fusion),
    )


def announcement(published: Published) -> ModelAnnouncement:
    """Return what to send to the models topic for a stored bundle."""
    verdict = published.manifest.gate
    return announced(
        *(published.manifest, published, "bundle"),
        metrics=published.manifest.metrics,
        gate=Gate(verdict=verdict.verdict, reason=verdict.reason),
    )


def announced(
    manifest: Manifest | DeltaManifest,
    stored: Stored,
    kind: Literal["bundle", "delta"],
    *,
    metrics: dict[str, float],
    gate: Gate,
) -> ModelAnnouncement:
    """Return the announcement of what is stored under a manifest."""
    return ModelAnnouncement(
        name=manifest.name,
        version=manifest.version,
        kind=kind,
        uri=stored.uri,
        manifest_sha256=stored.manifest_sha256,
        bytes=stored.num_bytes,
        created_at=manifest.created_at,
        encoder_version=manifest.encoder_version,
        trained_through=manifest.trained_through,
        metrics=metrics,
        gate=gate,
        parent=manifest.parent,
    )


def _manifest(
    learner: Learner,
    frozen: Frozen,
    fusion: FusionLearner,
    origin: Origin,
    *,
    version: str,
    index: IndexPlan,
) -> Manifest:
    reason = ": ".join(part for part in (origin.verdict.reason, origin.verdict.detail) if part)
    return Manifest(
        name=origin.name,
        version=version,
        parent=origin.parent,
        created_at=origin.created_ms,
        encoder_version=encoder_version(frozen.encoder),
        encoder=frozen.encoder.config,
        temperature=learner.temperature,
        trained_through=dict(origin.trained_through),
        metrics=dict(origin.metrics),
        gate=GateVerdict(verdict=origin.verdict.verdict, reason=reason),
        features=FEATURES if _ranker(fusion) is not None else (),
        channels=fusion.channels,
        index=IndexFacts(num_lists=index.num_lists, nprobe=index.nprobe, recall=index.recall),
    )


def _ranker(fusion: FusionLearner) -> RankerWeights | None:
    """Return the ranker to ship: the search by vector alone has its order already."""
    return None if fusion.channels == ("rnn",) else fusion.weights


def _latest_sessions(recent: Windows) -> list[list[int]]:
    columns = zip(recent.rows_BT, recent.lengths_B, strict=True)
    return [rows[:length].tolist() for rows, length in columns][-MAX_SESSIONS:]
