"""A simulated world, and a version trained on its clicks that serves every item; knows no Kafka."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from rich.progress import Progress

from cli.settings import Settings
from index.features import CHANNELS
from index.item_index import plan
from model.bundle import Bundle, Published, load, new_version, publish
from model.manifest import IndexFacts
from model.store import Store
from stream.click_log import ClickLog
from stream.simulator import Simulator, SimulatorSettings
from trainer.first import Order, train_first
from trainer.settings import TrainerSettings

_FIRST_CLICK_MS = 1_790_000_000_000


@dataclasses.dataclass(frozen=True)
class World:
    """How many items there are, how much the version has seen of them, and the seed of it all.

    `channels` are those of `trainer.fusion.channels`.
    """

    items: int
    training_clicks: int
    dim: int
    seed: int
    channels: tuple[str, ...] = tuple(CHANNELS)

    def simulator(self) -> Simulator:
        """Return the source of clicks, at its beginning."""
        settings = SimulatorSettings(
            users=max(5_000, self.items // 2),
            items=self.items,
            topics=max(40, self.items // 250),
            active_sessions=max(500, self.items // 40),
            new_items_per_1000_clicks=0.0,
            truth="off",
        )
        return Simulator(settings, self.seed)

    def version(self, simulator: Simulator, folder: Path) -> Published:
        """Train on the next clicks of `simulator`; store the version in `folder`."""
        clicks = simulator.take(self.training_clicks)
        log = ClickLog(
            user_ids=clicks.user_ids,
            session_ids=clicks.session_ids,
            item_ids=clicks.item_ids,
            times_ms=_FIRST_CLICK_MS + 3 * np.arange(len(clicks), dtype=np.int64),
        )
        store = Store(str(folder))
        with Progress(disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("train", total=None)
            first = train_first(
                log,
                store,
                _trainer_settings(self.channels),
                Order(dim=self.dim, epochs=1),
                now_ms=int(time.time() * 1000),
                report=lambda at: progress.update(task, completed=at.clicks, total=at.total_clicks),
            )
        trained = load(first.published.uri, first.published.manifest_sha256, max_bytes=2**33)
        return publish(store, self._filled(trained))

    def _filled(self, trained: Bundle) -> Bundle:
        """Return the version with every item: the unclicked ones lie near trained ones."""
        rng = np.random.default_rng(self.seed)
        known = set(trained.catalogue.ids)
        missing = [f"i{n}" for n in range(self.items) if f"i{n}" not in known]
        near = trained.vectors_ND[rng.integers(len(known), size=len(missing))]
        noise = rng.standard_normal(near.shape) * 0.5 / np.sqrt(near.shape[1])
        vectors = np.concatenate([trained.vectors_ND, (near + noise).astype(np.float32)])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        index = plan(vectors, _queries(trained), k=20, seed=self.seed)
        manifest = trained.manifest
        manifest = msgspec.structs.replace(
            manifest,
            version=new_version(manifest.created_at, "0" * 8, after=manifest.version),
            index=IndexFacts(num_lists=index.num_lists, nprobe=index.nprobe, recall=index.recall),
        )
        return dataclasses.replace(
            trained,
            manifest=manifest,
            catalogue=trained.catalogue.extended(missing),
            vectors_ND=vectors,
            popularity_N=np.append(trained.popularity_N, np.zeros(len(missing), np.float32)),
            centroids_CD=index.centroids_CD,
            list_numbers_N=index.list_numbers_N,
            golden=(),
        )


def _trainer_settings(channels: tuple[str, ...]) -> TrainerSettings:
    return Settings.model_validate({"trainer": {"fusion": {"channels": channels}}}).trainer


def _queries(trained: Bundle) -> np.ndarray[Any, np.dtype[Any]]:
    queries = []
    with torch.inference_mode():
        for golden in trained.golden:
            items = torch.from_numpy(trained.vectors_ND[golden.rows])[None]
            for length in range(1, len(golden.rows) + 1):
                state = trained.encoder.encode(items, torch.tensor([length]))
                queries.append(trained.encoder.query(state, items[:, length - 1])[0].numpy())
    return np.stack(queries)
