"""How many clicks the one thread of a trainer learns in a second of CPU time; no Kafka.

    python -m benchmarks.trainer --items 40000 --json
    python -m benchmarks.trainer --log FOLDER --negatives 1024 --json

Sessions are those of a log, as `nextclick evaluate` reads it, or synthetic: then item popularity
follows 1/rank and sessions are random, so the loss means nothing; padding and candidate counts are
those of short shop sessions. A click that begins a session is no target and is not counted. The
first steps are not timed.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from benchmarks.options import Help
from evaluation.recorded import Cut, read_recorded
from trainer.learner import Learner, new_learner
from trainer.settings import LearningSettings
from trainer.windows import Int64, Spans, Windows, batches_by_length, cut_sessions, gather

_WARM_UP_STEPS = 5
_GAP_MS = 1_800_000


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--log", help="click log, as for `nextclick evaluate`; default synthetic")
    parser.add_argument("--items", type=int, default=40_000)
    parser.add_argument("--clicks", type=int, default=150_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--negatives", type=int, default=1024)
    parser.add_argument("--batch-targets", type=int, default=1024)
    parser.add_argument("--mixed-lengths", action="store_true", help="as the stream batches them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = measure(options)
    if options.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name:20} {value}")


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return the speed and what it was measured with."""
    rng = np.random.default_rng(options.seed)
    rows_F, spans, num_items = _recorded(options) if options.log else _synthetic(options, rng)
    learner = _learner(options, num_items)
    batches = _batches(rows_F, spans, options, rng)
    for windows in batches[:_WARM_UP_STEPS]:
        learner.learn(windows)
    clicks = 0
    started = time.process_time()
    for windows in batches[_WARM_UP_STEPS:]:
        clicks += learner.learn(windows).num_targets
    seconds = time.process_time() - started
    return {
        "clicks_per_second": round(clicks / seconds),
        "clicks": clicks,
        "seconds": round(seconds, 2),
        "threads": torch.get_num_threads(),
        "log": options.log and Path(options.log).resolve().name,
        "items": num_items,
        "dim": options.dim,
        "negatives": options.negatives,
        "batch_targets": options.batch_targets,
        "mixed_lengths": options.mixed_lengths,
        "seed": options.seed,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


def _learner(options: argparse.Namespace, num_items: int) -> Learner:
    settings = LearningSettings(dim=options.dim, negatives=options.negatives, full_softmax_items=0)
    learner = new_learner(settings, seed=options.seed)
    vectors_ND = normalize(torch.randn(num_items, options.dim), dim=1)
    learner.items.append([str(item) for item in range(num_items)], vectors_ND)
    return learner


def _recorded(options: argparse.Namespace) -> tuple[Int64, Spans, int]:
    """Return the latest sessions before the test period: rows, spans, and how many items."""
    recorded = read_recorded(options.log, Cut(), gap_ms=_GAP_MS)
    stop = recorded.first_test
    order_F = np.argsort(recorded.session_F[:stop], kind="stable")
    session_F = recorded.session_F[:stop][order_F]
    start_S = np.flatnonzero(np.append(True, np.diff(session_F) != 0))
    stop_S = np.append(start_S[1:], stop)
    kept = stop_S > stop - options.clicks
    spans = cut_sessions(start_S[kept], stop_S[kept])
    return recorded.item_F[:stop][order_F], spans, len(recorded.item_ids)


def _synthetic(options: argparse.Namespace, rng: np.random.Generator) -> tuple[Int64, Spans, int]:
    lengths_S = np.minimum(rng.geometric(0.22, options.clicks // 4) + 1, 60)
    stop_S = np.cumsum(lengths_S)
    share_N = 1 / np.arange(1, options.items + 1)
    rows_F = rng.choice(options.items, size=int(stop_S[-1]), p=share_N / share_N.sum())
    return rows_F, cut_sessions(stop_S - lengths_S, stop_S), int(options.items)


def _batches(
    rows_F: Int64, spans: Spans, options: argparse.Namespace, rng: np.random.Generator
) -> list[Windows]:
    if not options.mixed_lengths:
        groups = batches_by_length(spans, options.batch_targets, rng)
    else:
        num = max(1, spans.num_targets // options.batch_targets)
        groups = np.array_split(rng.permutation(len(spans)), num)
    return [gather(rows_F, spans.select(group)) for group in groups]


if __name__ == "__main__":
    main()
