"""Factories of the worker's tests: small random versions, click records, a running system."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
import torch
from kafka.consumer.fetcher import ConsumerRecord
from prometheus_client import CollectorRegistry

from index.candidates import FEATURES
from index.item_index import IndexPlan, ItemIndex
from model.bundle import Bundle, Manifest, Published, RecentClicks, publish
from model.catalogue import Catalogue
from model.contents import no_clicks
from model.delta import Delta, publish_delta
from model.encoders.families import build_encoder
from model.encoders.session_encoder import EncoderConfig
from model.listed import Stored
from model.manifest import DeltaManifest, delta_version
from model.ranker import shapes
from model.store import Store
from stream.kafka_types import TopicPartition
from stream.validation import partition_of
from worker.loader import VersionLoader
from worker.metrics import WorkerMetrics
from worker.refresh import VersionFollower
from worker.version import ServingVersion, serving_version
from worker.version import delta_version as join_version


def _load(name: str) -> ModuleType:
    # Tests cannot import each other: shared files are loaded.
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


running, worlds = _load("running"), _load("worlds")
make_system, system, start_load = running.make_system, running.system, running.start_load

MODELS = TopicPartition("models", 0)
NOW_MS = 1_790_000_000_000


@pytest.fixture
def make_bundle() -> Callable[..., Bundle]:
    """Make a bundle with random weights; equal seeds are equal bundles."""

    def make(
        ids: Sequence[str] = tuple(f"i{n}" for n in range(200)),
        *,
        version: str = "20261123T000000000Z-00000001",
        dim: int = 16,
        seed: int = 0,
    ) -> Bundle:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = build_encoder(EncoderConfig(dim=dim)).eval().requires_grad_(False)
        rng = np.random.default_rng(seed)
        vectors = rng.standard_normal((len(ids), dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Bundle(
            manifest=Manifest(
                name="default",
                version=version,
                created_at=NOW_MS,
                encoder_version=version,
                encoder=encoder.config,
            ),
            encoder=encoder,
            catalogue=Catalogue(ids),
            vectors_ND=vectors,
            popularity_N=np.arange(len(ids), 0, -1, dtype=np.float32),
        )

    return make


@pytest.fixture
def make_fused(make_bundle: Callable[..., Bundle]) -> Callable[..., Bundle]:
    """A bundle whose ranker goes by one feature alone; item 0 was always followed by item 1."""

    def make(feature: str = "next_clicks", **manifest: Any) -> Bundle:
        rows_E = np.tile(np.array([0, 1], np.int32), 10)
        clicks = RecentClicks(rows_E, np.arange(20), np.tile(np.array([0, 1], np.int32), 10))
        linear_F, skip_X = np.zeros(len(FEATURES), np.float32), np.zeros(len(FEATURES) + 2, "f4")
        linear_F[FEATURES.index(feature)] = 1
        skip_X[FEATURES.index(feature)] = 1
        ranker = shapes(len(FEATURES))._replace(
            scale_F=np.ones(len(FEATURES), np.float32), linear_F=linear_F, skip_X=skip_X
        )
        bundle = make_bundle()
        manifest = msgspec.structs.replace(bundle.manifest, **({"features": FEATURES} | manifest))
        return replace(bundle, clicks=clicks, ranker=ranker, manifest=manifest)

    return make


@pytest.fixture
def make_version(make_bundle: Callable[..., Bundle]) -> Callable[..., ServingVersion]:
    """Make a serving version; `number` tells versions of one process apart."""

    def make(number: int = 1, **overrides: Any) -> ServingVersion:
        bundle = make_bundle(**overrides)
        index = ItemIndex.build(bundle.vectors_ND, IndexPlan())
        return serving_version(bundle, index, number, 60)

    return make


@pytest.fixture
def make_delta() -> Callable[..., Delta]:
    """Make a delta of a bundle: the first rows move, `new_ids` are appended."""

    def make(
        bundle: Bundle,
        number: int = 1,
        *,
        num_changed: int = 20,
        new_ids: Sequence[str] = (),
        clicks: RecentClicks | None = None,
    ) -> Delta:
        manifest, dim = bundle.manifest, bundle.vectors_ND.shape[1]
        rng = np.random.default_rng(1_000 + number)
        vectors = rng.standard_normal((num_changed + len(new_ids), dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Delta(
            manifest=DeltaManifest(
                name=manifest.name,
                version=delta_version(manifest.version, number),
                parent=manifest.version,
                created_at=NOW_MS,
                encoder_version=manifest.encoder_version,
            ),
            rows_M=np.arange(num_changed, dtype=np.int32),
            vectors_MD=vectors[:num_changed],
            new_ids=list(new_ids),
            new_vectors_XD=vectors[num_changed:],
            clicks=clicks if clicks is not None else no_clicks(),
        )

    return make


@pytest.fixture
def publish_bundle(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> Callable[..., Published]:
    """Publish a bundle into a store of its own."""
    store = Store(str(tmp_path / "models"))
    return lambda **overrides: publish(store, make_bundle(**overrides))


@pytest.fixture
def store_delta(tmp_path: Path) -> Callable[[Delta, int], Stored]:
    """Store a delta of a bundle of so many items beside the bundles."""
    store = Store(str(tmp_path / "models"))
    return lambda delta, num_items: publish_delta(store, delta, num_items=num_items)


@pytest.fixture
def make_record() -> Callable[..., ConsumerRecord]:
    """Make a record of the clicks topic; `value` replaces the click's JSON."""

    def make(  # noqa: PLR0913  a factory with overrides
        offset: int = 0,
        *,
        user: str = "u1",
        item: str = "i1",
        partition: int | None = None,
        num_partitions: int = 1,
        log_time: int = NOW_MS,
        value: bytes | None = None,
        key: bytes | None = b"",
        **fields: Any,
    ) -> ConsumerRecord:
        click = {"user_id": user, "item_id": item, "timestamp": log_time, **fields}
        return ConsumerRecord(
            topic="clicks",
            partition=partition_of(user.encode(), num_partitions)
            if partition is None
            else partition,
            leader_epoch=0,
            offset=offset,
            timestamp=log_time,
            timestamp_type=1,
            key=user.encode() if key == b"" else key,
            value=json.dumps(click).encode() if value is None else value,
            headers=[],
            checksum=None,
            serialized_key_size=-1,
            serialized_value_size=-1,
            serialized_header_size=-1,
        )

    return make


class ModelsReader:
    """A consumer of the models topic; `polls` are lists of (key, value), or an error."""

    def __init__(self, polls):
        self._polls = polls

    def assign(self, partitions):
        assert partitions == [MODELS]

    def seek_to_beginning(self, *partitions):
        pass

    def poll(self, timeout_ms):
        if not self._polls:
            return {}
        polled = self._polls.pop(0)
        if isinstance(polled, Exception):
            raise polled
        return {MODELS: [Record(*record) for record in polled]}

    def close(self):
        pass


class Record(NamedTuple):
    key: bytes
    value: bytes | None


@pytest.fixture
def make_reader() -> Callable[..., ModelsReader]:
    """Make a consumer of the models topic over polls that are kept outside."""
    return ModelsReader


@pytest.fixture
def follow(tmp_path, make_reader):
    """Follow polls in a thread; returns the follower and its counts."""
    followers = []

    def start(polls):
        registry = CollectorRegistry()
        follower = VersionFollower(
            lambda: make_reader(polls),
            VersionLoader(str(tmp_path / "models"), max_bytes=2**30, num_popular=41),
            WorkerMetrics(registry),
            topic="models",
            model="default",
        )
        followers.append(follower)
        follower.start()

        def count(outcome, reason=""):
            labels = {"outcome": outcome, "reason": reason}
            return registry.get_sample_value("nextclick_model_loads_total", labels) or 0

        return follower, count

    yield start
    for follower in followers:
        follower.close()


@pytest.fixture
def make_world(make_version, make_delta):
    ids = tuple(f"i{n}" for n in range(40))
    grown = (*ids, "new0", "new1")
    shuffled = (*reversed(ids[2:]), "new0", "new1", "new2")

    def make(versions=None, **options):
        first = make_version(1, ids=ids, version="20261123T000000001Z-00000001", seed=1)
        delta = make_delta(first.bundle, new_ids=["new0"])
        return worlds.World(
            versions
            or [
                first,
                join_version(first, delta, 2),
                make_version(3, ids=grown, version="20261123T000000002Z-00000002", seed=2),
                make_version(
                    4, ids=shuffled, version="20261123T000000003Z-00000003", seed=3, dim=8
                ),
            ],
            **options,
        )

    return make
