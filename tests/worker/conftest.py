"""Factories of the worker's tests: small random versions, click records, a running system."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from kafka.consumer.fetcher import ConsumerRecord

from index.item_index import IndexPlan, ItemIndex
from model.bundle import Bundle, Manifest, Published, publish
from model.catalogue import Catalogue
from model.encoders.families import build_encoder
from model.encoders.session_encoder import EncoderConfig
from model.store import Store
from stream.validation import partition_of
from worker.version import ServingVersion, serving_version


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
def make_version(make_bundle: Callable[..., Bundle]) -> Callable[..., ServingVersion]:
    """Make a serving version; `number` tells versions of one process apart."""

    def make(number: int = 1, **overrides: Any) -> ServingVersion:
        bundle = make_bundle(**overrides)
        index = ItemIndex.build(bundle.vectors_ND, IndexPlan())
        return serving_version(bundle, index, number, 60)

    return make


@pytest.fixture
def publish_bundle(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> Callable[..., Published]:
    """Publish a bundle into a store of its own."""
    store = Store(str(tmp_path / "models"))
    return lambda **overrides: publish(store, make_bundle(**overrides))


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


@pytest.fixture
def make_world(make_version):
    ids = tuple(f"i{n}" for n in range(40))
    grown = (*ids, "new0", "new1")
    shuffled = (*reversed(ids[2:]), "new0", "new1", "new2")

    def make(**options):
        return worlds.World(
            [
                make_version(1, ids=ids, version="20261123T000000001Z-00000001", seed=1),
                make_version(2, ids=grown, version="20261123T000000002Z-00000002", seed=2),
                make_version(
                    3, ids=shuffled, version="20261123T000000003Z-00000003", seed=3, dim=8
                ),
            ],
            **options,
        )

    return make
