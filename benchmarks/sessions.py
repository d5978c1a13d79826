"""Memory of a live user, and how fast sessions come back from their changelog records.

    python -m benchmarks.sessions --users 1000000 --json

Every user clicks `--clicks` times, through the worker's own code: session slabs, meter of next
clicks, a digest chain. `bytes_per_user` is the growth of the process's resident memory. Then the
changelog values of all users are made, decoded and placed into empty slabs, as a restore does; the
records come from memory, so reading them from a broker is not in `restored_per_second`. Caveat: the
resident memory grows in steps, since slabs double; fewer users may cost more each.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.environment import environment
from benchmarks.options import Help
from benchmarks.world import World
from index.item_index import IndexPlan, ItemIndex
from index.threads import use_threads
from model.bundle import load
from stream.changelog import Entry, decode
from stream.kafka_types import ConsumerRecord
from worker.hits import NextClickMeter
from worker.newcomers import Newcomers
from worker.outputs import session_values
from worker.recommender import Clicks, advance
from worker.restore import place_session
from worker.sessions import Sessions
from worker.version import ServingVersion, serving_version

_ITEMS, _TRAINING_CLICKS, _DIM, _K = 5_000, 50_000, 128, 20
_BATCH = 500
_NOW_MS = 1_790_000_000_000
_GAP_MS = 1_800_000

Figures = dict[str, Any]


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--clicks", type=int, default=3, help="clicks of each user")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    use_threads(1)
    with tempfile.TemporaryDirectory(prefix="nextclick-benchmark-") as folder:
        version = _version(Path(folder), options.seed)
    report = measure(version, options)
    if options.json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        print(f"{name:24} {value}")


def measure(version: ServingVersion, options: argparse.Namespace) -> Figures:
    """Return the figures and what they were measured with."""
    _live(version, users=_BATCH, clicks=1, seed=0)  # whatever is allocated once
    gc.collect()
    before = _resident_bytes()
    sessions, _meter = _live(version, options.users, options.clicks, options.seed)
    gc.collect()
    grown = _resident_bytes() - before
    placed, seconds = _restored(version, sessions)
    return {
        "users": options.users,
        "rss_gib": round(grown / 2**30, 3),
        "bytes_per_user": round(grown / options.users),
        "restored_per_second": round(placed / seconds),
        "clicks": options.clicks,
        "dim": _DIM,
        "seed": options.seed,
        **environment(),
    }


def _version(folder: Path, seed: int) -> ServingVersion:
    world = World(_ITEMS, _TRAINING_CLICKS, _DIM, seed, ("rnn",))
    published = world.version(world.simulator(), folder)
    bundle = load(published.uri, published.manifest_sha256, max_bytes=2**30)
    return serving_version(bundle, ItemIndex.build(bundle.vectors_ND, IndexPlan()), 1, _K)


def _live(
    version: ServingVersion, users: int, clicks: int, seed: int
) -> tuple[Sessions, NextClickMeter]:
    """Return slabs in which every user has clicked so often."""
    rng = np.random.default_rng(seed)
    sessions = Sessions(version.bundle.encoder.state_dim, max_live=users + _BATCH)
    meter = NextClickMeter(_K)
    for first in range(0, users, _BATCH):
        names = [f"user-{n:09d}" for n in range(first, min(first + _BATCH, users))]
        slot_B = np.array([sessions.create(0, name) for name in names], np.int64)
        for click in range(clicks):
            code_B = rng.integers(_ITEMS, size=len(names)).astype(np.int32)
            advance(
                _clicks(version, slot_B, code_B, first + click * users), sessions, version, _GAP_MS
            )
            lists_BK = rng.integers(_ITEMS, size=(len(names), _K)).astype(np.int32)
            meter.measure(slot_B, code_B, np.ones(len(names), bool), lists_BK, np.ones(len(names)))
    return sessions, meter


def _clicks(version: ServingVersion, slot_B: Any, code_B: Any, first_offset: int) -> Clicks:
    num = len(slot_B)
    return Clicks(
        slot_B=slot_B,
        code_B=code_B,
        time_B=np.full(num, _NOW_MS, np.int64),
        offset_B=np.arange(first_offset, first_offset + num),
        session_hash_B=np.zeros(num, np.uint32),
        repeat_B=np.zeros(num, bool),
        item_ids=[version.bundle.catalogue.ids[code] for code in code_B.tolist()],
    )


def _restored(version: ServingVersion, sessions: Sessions) -> tuple[int, float]:
    """Place every session's record into empty slabs; return how many, and the seconds."""
    empty = Sessions(sessions.hidden_SH.shape[1], max_live=sessions.max_live)
    newcomers, placed, seconds = Newcomers(_DIM), 0, 0.0
    for records in _records(version, sessions):
        started = time.perf_counter()
        for record in records:
            entry = decode(record)
            assert isinstance(entry, Entry)
            place_session(empty, entry, version, newcomers)
        seconds += time.perf_counter() - started
        placed += len(records)
    assert len(empty) == len(sessions), "a session was lost"
    return placed, seconds


def _records(version: ServingVersion, sessions: Sessions) -> Iterator[list[ConsumerRecord]]:
    ids = version.bundle.catalogue.ids
    users = list(sessions.users(0).items())
    for first in range(0, len(users), _BATCH):
        some = users[first : first + _BATCH]
        slots_U = np.array([slot for _, slot in some], np.int64)
        values = session_values(sessions, slots_U, version, 1, ids.__getitem__)
        yield [_record(name, value) for (name, _), value in zip(some, values, strict=True)]


def _record(user_id: str, value: bytes) -> ConsumerRecord:
    empty: dict[str, Any] = dict.fromkeys(ConsumerRecord._fields)
    known = {"topic": "sessions", "partition": 0, "key": user_id.encode(), "value": value}
    return ConsumerRecord(**(empty | known | {"headers": []}))


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
