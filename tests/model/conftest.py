"""Factories for small model versions."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from model.bundle import Bundle, RecentClicks, encoder_version
from model.catalogue import Catalogue
from model.delta import Delta
from model.encoders.families import build_encoder
from model.encoders.session_encoder import EncoderConfig
from model.golden import golden_sessions
from model.manifest import (
    DeltaManifest,
    IndexFacts,
    Manifest,
    delta_version,
    new_version,
)

MakeBundle = Callable[..., Bundle]
MakeDelta = Callable[..., Delta]


def unit_rows(num_rows: int, dim: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num_rows, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def make_bundle() -> MakeBundle:
    """Make a bundle; a later `number` is a later version."""

    def make(*, num_items: int = 30, dim: int = 8, number: int = 1, **changes: object) -> Bundle:
        config = EncoderConfig(dim=dim)
        torch.manual_seed(number)
        encoder = build_encoder(config).eval().requires_grad_(False)
        vectors_ND = unit_rows(num_items, dim)
        sessions = [[0, 1, 2], [5], [row % num_items for row in range(28)]]
        fields: dict[str, object] = {
            "manifest": Manifest(
                name="default",
                version=new_version(1_795_000_000_000 + number, "1a2b3c4d5e"),
                created_at=1_795_000_000_000 + number,
                encoder_version=encoder_version(encoder),
                encoder=config,
                trained_through={0: 17, 3: 4},
                metrics={"recall": 0.5},
                index=IndexFacts(num_lists=3, nprobe=2, recall=0.99),
            ),
            "encoder": encoder,
            "catalogue": Catalogue([f"item-{row}" for row in range(num_items)]),
            "vectors_ND": vectors_ND,
            "popularity_N": np.arange(num_items, dtype=np.float32),
            "centroids_CD": unit_rows(3, dim),
            "list_numbers_N": (np.arange(num_items) % 3).astype(np.int32),
            "golden": golden_sessions(encoder, vectors_ND, sessions),
        }
        return Bundle(**(fields | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_delta() -> MakeDelta:
    """Make a delta of a bundle: rows 3 and 0 moved, two items are new, three clicks were made."""

    def make(bundle: Bundle, number: int = 1, **changes: object) -> Delta:
        manifest, dim = bundle.manifest, bundle.vectors_ND.shape[1]
        fields: dict[str, object] = {
            "manifest": DeltaManifest(
                name=manifest.name,
                version=delta_version(manifest.version, number),
                parent=manifest.version,
                created_at=manifest.created_at + 60_000,
                encoder_version=manifest.encoder_version,
                trained_through={0: 20},
            ),
            "rows_M": np.array([3, 0], np.int32),
            "vectors_MD": unit_rows(2, dim, seed=5),
            "new_ids": ["new-0", "new-1"],
            "new_vectors_XD": unit_rows(2, dim, seed=6),
            "clicks": RecentClicks(
                np.array([0, 31, 4], np.int32), np.arange(1_000, 1_003), np.zeros(3, np.int32)
            ),
        }
        return Delta(**(fields | changes))  # type: ignore[arg-type]

    return make
