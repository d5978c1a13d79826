"""Small random model versions for runs that test the stream, not the recommendations."""

from __future__ import annotations

import time

import numpy as np
import torch

from model.bundle import (
    Bundle,
    Manifest,
    Published,
    content_hash,
    encoder_version,
    new_version,
    publish,
)
from model.catalogue import Catalogue
from model.encoders.families import build_encoder
from model.encoders.session_encoder import EncoderConfig
from model.store import Store

_DIM = 16


class Versions:
    """Publish version after version into one store, each with other weights."""

    def __init__(self, store_url: str, *, num_items: int, seed: int) -> None:
        self._store = Store(store_url)
        self._ids = tuple(f"i{n}" for n in range(num_items))
        self._rng = np.random.default_rng(seed)
        self._last: str | None = None

    def publish(self) -> Published:
        """Store the next version; its name is greater than the one before."""
        bundle = self._bundle(int(self._rng.integers(2**31)))
        self._last = bundle.manifest.version
        return publish(self._store, bundle)

    def _bundle(self, seed: int) -> Bundle:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = build_encoder(EncoderConfig(dim=_DIM)).eval().requires_grad_(False)
        rng = np.random.default_rng(seed)
        vectors_ND = rng.standard_normal((len(self._ids), _DIM)).astype(np.float32)
        vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        catalogue = Catalogue(self._ids)
        now_ms = int(time.time() * 1000)
        name = new_version(now_ms, content_hash(encoder, vectors_ND, catalogue), after=self._last)
        return Bundle(
            manifest=Manifest(
                name="default",
                version=name,
                created_at=now_ms,
                encoder_version=encoder_version(encoder),
                encoder=encoder.config,
            ),
            encoder=encoder,
            catalogue=catalogue,
            vectors_ND=vectors_ND,
            popularity_N=np.arange(len(self._ids), 0, -1, dtype=np.float32),
        )
