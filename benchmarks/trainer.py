"""How many clicks a second the trainer learns on one thread; synthetic sessions, no Kafka.

    python -m benchmarks.trainer --items 40000 --json

Caveats: item popularity follows 1/rank and sessions are random, so the loss means nothing; padding
and candidate counts are those of short shop sessions. The first steps are not timed.
"""

import argparse
import json
import platform
import time

import numpy as np
import torch
from torch.nn.functional import normalize

from trainer.learner import Learner, new_learner
from trainer.settings import LearningSettings
from trainer.windows import Windows, batches_by_length, cut_sessions, gather

_WARM_UP_STEPS = 5


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
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
    learner = _learner(options)
    batches = _batches(options, rng)
    for windows in batches[:_WARM_UP_STEPS]:
        learner.learn(windows)
    clicks = 0
    started = time.perf_counter()
    for windows in batches[_WARM_UP_STEPS:]:
        clicks += learner.learn(windows).num_targets
    seconds = time.perf_counter() - started
    return {
        "clicks_per_second": round(clicks / seconds),
        "clicks": clicks,
        "seconds": round(seconds, 2),
        "threads": torch.get_num_threads(),
        "items": options.items,
        "dim": options.dim,
        "negatives": options.negatives,
        "batch_targets": options.batch_targets,
        "mixed_lengths": options.mixed_lengths,
        "seed": options.seed,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


def _learner(options: argparse.Namespace) -> Learner:
    settings = LearningSettings(dim=options.dim, negatives=options.negatives, full_softmax_items=0)
    learner = new_learner(settings, seed=options.seed)
    vectors_ND = normalize(torch.randn(options.items, options.dim), dim=1)
    learner.items.append([str(item) for item in range(options.items)], vectors_ND)
    return learner


def _batches(options: argparse.Namespace, rng: np.random.Generator) -> list[Windows]:
    lengths_S = np.minimum(rng.geometric(0.22, options.clicks // 4) + 1, 60)
    stop_S = np.cumsum(lengths_S)
    share_N = 1 / np.arange(1, options.items + 1)
    rows_F = rng.choice(options.items, size=int(stop_S[-1]), p=share_N / share_N.sum())
    spans = cut_sessions(stop_S - lengths_S, stop_S)
    if not options.mixed_lengths:
        groups = batches_by_length(spans, options.batch_targets, rng)
    else:
        num = max(1, spans.num_targets // options.batch_targets)
        groups = np.array_split(rng.permutation(len(spans)), num)
    return [gather(rows_F, spans.select(group)) for group in groups]


if __name__ == "__main__":
    main()
