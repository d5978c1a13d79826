"""Small click logs and trained evaluations for the tests of evaluation."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pyarrow import csv, parquet

from evaluation.recorded import Cut, Recorded, read_recorded

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
            lines.append(",".join([*map(str, ids), str(1_760_000_000_000 + minute * MINUTE_MS)]))
        folder = tmp_path / "log"
        folder.mkdir(exist_ok=True)
        log = folder / "events.csv"
        log.write_text("\n".join(lines))
        parquet.write_table(csv.read_csv(log), log.with_suffix(".parquet"))
        if meta:
            (folder / "meta.json").write_text(json.dumps(meta))
        return str(folder)

    return write


@pytest.fixture
def make_recorded(write_log: Callable[..., str]) -> Callable[..., Recorded]:
    """Read rows of (session, item, minute), cut as told."""

    def make(rows: Sequence[Sequence[Any]], cut: Cut = WHOLE, **options: Any) -> Recorded:
        return read_recorded(write_log(rows, **options), cut, gap_ms=30 * MINUTE_MS)

    return make
