"""Does learning from the stream hold up, or would a model made anew each day be better? No Kafka.

    python -m benchmarks.retrain FOLDER --days 2 --json

The last days of a log are played twice, as `nextclick evaluate --protocol prequential` plays them:
once by one trainer that goes on learning and publishing through all of them, and once by a trainer
that begins each day anew, from a first version trained on everything before that day, and then
learns from the stream as well. On the first day both are the same, so the days after it count.
`change` is what the one that went on has more, as a share; its 95 % interval is by sessions. All
settings but `trainer.seed` are those of the environment.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from benchmarks.environment import environment
from benchmarks.options import Help
from cli.settings import Settings, load_settings
from evaluation.evaluate import Evaluation, Surroundings, Task, evaluate
from evaluation.intervals import session_intervals
from evaluation.metrics import hits, reciprocal_ranks
from evaluation.recorded import Cut, Recorded, read_recorded
from index.threads import use_threads

_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 86_400_000


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("log", help="click log, as for `nextclick evaluate`")
    parser.add_argument("--days", type=int, default=2, help="days that are played, two or more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.days < 2:  # noqa: PLR2004
        parser.error("--days: on the first day there is nothing to compare")
    torch.set_num_threads(1)
    use_threads(1)
    report = measure(options.log, load_settings(None, {"trainer.seed": options.seed}), options)
    print(json.dumps(report) if options.json else table(report))


def measure(log: str, settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of every day but the first, and how often versions were renewed."""
    gap_ms = int(settings.trainer.dataset.idle_gap_minutes * _MINUTE_MS)
    recorded = read_recorded(log, Cut(days=options.days), gap_ms=gap_ms)
    ranking = settings.worker.ranking
    task = Task(
        *("prequential", 20, 0, None, options.seed),
        diversity=ranking.diversity,
        exploration=ranking.exploration,
    )
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        going_on = _evaluated(recorded, task, settings, progress, "going on")
        days = []
        for day in range(1, options.days):
            part = one_day(recorded, recorded.split_ms + day * _DAY_MS)
            anew = _evaluated(part, task, settings, progress, f"anew on day {day + 1}")
            days.append(compared(going_on, anew, seed=options.seed))
    return {
        "log": recorded.name,
        "bundles": going_on.verdicts.get("accepted", 0),
        "versions": going_on.num_versions,
        "gate_verdicts": going_on.verdicts,
        "days": days,
        "seed": options.seed,
        "environment": environment(),
    }


def one_day(recorded: Recorded, start_ms: int) -> Recorded:
    """Return the log up to the end of the day that begins at `start_ms`, which is the test."""
    stop = recorded.first_from(start_ms + _DAY_MS)
    columns = ("item_F", "session_F", "time_F", "previous_F", "position_F")
    cut = {name: getattr(recorded, name)[:stop] for name in columns}
    return replace(recorded, split_ms=start_ms, **cut)


def compared(going_on: Evaluation, anew: Evaluation, *, seed: int) -> dict[str, Any]:
    """Return both figures on the clicks that both predicted."""
    points_P, ranks_P = going_on.tally.ranks()
    others_Q, other_ranks_Q = anew.tally.ranks()
    both_P, at_P, at_Q = np.intersect1d(points_P, others_Q, return_indices=True)
    values = [
        np.stack([hits(r), reciprocal_ranks(r)], 1) for r in (ranks_P[at_P], other_ranks_Q[at_Q])
    ]
    means, other_means = (value.mean(axis=0) for value in values)
    bounds = session_intervals(
        going_on.recorded.session_F[both_P], values[0] - values[1], seed=seed
    )
    return {
        "predictions": len(both_P),
        **{
            name: {
                "going_on": round(float(mean), 4),
                "anew": round(float(other), 4),
                "change": round(float(mean / other - 1), 4),
                "change_interval": [round(end / float(other), 4) for end in ends],
            }
            for name, mean, other, ends in zip(
                ("recall@20", "mrr@20"), means, other_means, bounds, strict=True
            )
        },
    }


def _evaluated(
    recorded: Recorded, task: Task, settings: Settings, progress: Progress, name: str
) -> Evaluation:
    """Evaluate once, in a folder that is removed afterwards."""
    total = len(recorded.predictions())
    training = progress.add_task(f"{name}: clicks learnt", total=None)
    predicting = progress.add_task(f"{name}: clicks predicted", total=total)
    with tempfile.TemporaryDirectory(prefix="nextclick-retrain-") as folder:
        around = Surroundings(
            Path(folder),
            time.process_time,
            lambda at: progress.update(training, completed=at.clicks, total=at.total_clicks),
            lambda done: progress.update(predicting, completed=done),
        )
        return evaluate(recorded, task, settings.trainer, around)


def table(report: dict[str, Any]) -> str:
    """Return the days as text."""
    lines = [f"{report['log']}: {report['bundles']} bundles, {report['versions']} versions"]
    for day, row in enumerate(report["days"], 2):
        lines.append(f"day {day}, {row['predictions']:,} predictions")
        lines += [
            f"  {name}: {row[name]['going_on']:.4f} going on, {row[name]['anew']:.4f} anew, "
            f"{row[name]['change']:+.1%} ({row[name]['change_interval'][0]:+.1%} to "
            f"{row[name]['change_interval'][1]:+.1%})"
            for name in ("recall@20", "mrr@20")
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
