"""Small click logs and trained evaluations for the tests of evaluation."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import csv, parquet

from evaluation.recorded import Cut, Recorded, read_recorded
from index.item_index import IndexPlan, ItemIndex
from model.bundle import Bundle, Manifest
from model.catalogue import Catalogue
from model.encoders.families import build_encoder
from model.encoders.session_encoder import EncoderConfig
from worker.version import ServingVersion, serving_version

MINUTE_MS = 60_000
WHOLE = Cut()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def write_log(tmp_path: Path) -> Callable[..., str]:
    """Write a folder with a log, rows of (session, item, minute), and its meta.json."""

    def write(rows: Sequence[Sequence[Any]], *, head: str = "session_id,item_id", **meta) -> str:
        lines = [f"{head},timestamp"]
        for *ids, minute in rows:
            lines.append(
                ",".join([*map(str, ids), str(1_760_000_000_000 + round(minute * MINUTE_MS))])
            )
        folder = tmp_path / "log"
        folder.mkdir(exist_ok=True)
        log = folder / "events.csv"
        log.write_text("\n".join(lines))
        parquet.write_table(csv.read_csv(log), log.with_suffix(".parquet"))
        (folder / "meta.json").write_text(json.dumps(meta))
        return str(folder)

    return write


@pytest.fixture
def make_recorded(write_log: Callable[..., str]) -> Callable[..., Recorded]:
    """Read rows of (session, item, minute), cut as told."""

    def make(rows: Sequence[Sequence[Any]], cut: Cut = WHOLE, **options: Any) -> Recorded:
        return read_recorded(write_log(rows, **options), cut, gap_ms=30 * MINUTE_MS)

    return make


@pytest.fixture
def make_version() -> Callable[..., ServingVersion]:
    """Make a version with random weights over some items; equal seeds are equal versions."""

    def make(ids: Sequence[str], *, number: int = 1, dim: int = 8, seed: int = 0) -> ServingVersion:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = build_encoder(EncoderConfig(dim=dim)).eval().requires_grad_(False)
        vectors = np.random.default_rng(seed).standard_normal((len(ids), dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        name = f"20261123T00000000{number}Z-00000001"
        bundle = Bundle(
            manifest=Manifest(
                name="default",
                version=name,
                created_at=0,
                encoder_version=name,
                encoder=encoder.config,
            ),
            encoder=encoder,
            catalogue=Catalogue(ids),
            vectors_ND=vectors,
            popularity_N=np.arange(len(ids), 0, -1, dtype=np.float32),
        )
        return serving_version(bundle, ItemIndex.build(vectors, IndexPlan()), number, 60)

    return make


@pytest.fixture
def ring_rows() -> Callable[..., list[tuple[int, str, float]]]:
    """Return clicks of sessions that walk round a ring of items, one every `seconds`.

    From `turn` on every session walks `step` items at a time.
    """

    def make(
        num: int, *, items: int = 30, turn: int | None = None, step: int = 7, seconds: float = 6.0
    ) -> list[tuple[int, str, float]]:
        rng = np.random.default_rng(0)
        rows = []
        walks = {slot: (slot, int(rng.integers(items))) for slot in range(20)}
        for number in range(num):
            slot = int(rng.integers(20))
            session, at = walks[slot]
            at = (at + (step if turn is not None and number >= turn else 1)) % items
            rows.append((session, f"i{at}", number * seconds / 60))
            over = rng.random() < 0.15
            walks[slot] = (1_000 + number, int(rng.integers(items))) if over else (session, at)
        return rows

    return make
