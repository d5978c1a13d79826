"""What each channel gives alone, in pairs and all together, under the static protocol; no Kafka.

    python -m benchmarks.ablation clicks.parquet --json
    python -m benchmarks.ablation FOLDER --max-predictions 10000

One version is trained as `nextclick evaluate` trains it. For every choice of channels a ranker is
then fitted on the same held-out clicks, predicted by the same vectors before those had learnt them,
and the worker's recommender answers the test period with it. All settings but `trainer.seed` and
`trainer.fusion.channels` are those of the environment.

Caveats: in every row the session's own items are candidates, and popular items fill up what the
channels leave short; `own_lists` are those of a channel by its own order, with neither. One seed:
another one moves an MRR by .001. `below_all` is the 95 % interval, by sessions, of what all
channels together have more; it does not cover the fitting. `rnn` alone is ranked here, which a
version with `trainer.fusion.channels = ["rnn"]` is not. The rarity of items in `knn` is read from
the counts of `popular`, also where that channel is off.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from benchmarks.environment import environment
from benchmarks.options import Help
from cli.settings import Settings, load_settings
from evaluation.evaluate import Surroundings, Task, predict
from evaluation.intervals import session_intervals
from evaluation.metrics import Accuracy, Int64, accuracy, hits, reciprocal_ranks
from evaluation.recorded import Cut, Recorded, read_recorded
from evaluation.tally import Tally
from evaluation.workshop import Reign, Workshop
from index.candidates import FEATURES
from index.threads import use_threads
from model.manifest import CHANNELS, Channel
from trainer.first import Order, train_first
from trainer.fusion_learner import FusionLearner
from trainer.publish import announcement
from trainer.settings import FusionSettings
from trainer.windows import Windows
from worker.version import ServingVersion, serving_version

_MINUTE_MS = 60_000

Choice = tuple[Channel, ...]


class Witness(FusionLearner):
    """A learner that can tell others what it was shown, in the order in which it was."""

    def __init__(self, settings: FusionSettings, *, temperature: float) -> None:
        super().__init__(settings, temperature=temperature)
        self._settings = settings
        self._factor = temperature
        self._shown: list[Callable[[FusionLearner, np.random.Generator], None]] = []

    def remember(self, rows_B: Int64, times_B: Int64, before_B: Int64) -> None:
        """Remember clicks, and that they were remembered."""
        super().remember(rows_B, times_B, before_B)
        self._shown.append(lambda other, rng: other.remember(rows_B, times_B, before_B))

    def observe(
        self, windows: Windows, queries_MD: Tensor, vectors_ND: Tensor, rng: np.random.Generator
    ) -> None:
        """Make examples, and keep what they are made of."""
        super().observe(windows, queries_MD, vectors_ND, rng)
        self._shown.append(lambda other, rng: other.observe(windows, queries_MD, vectors_ND, rng))

    def fitted(self, channels: Choice, *, seed: int) -> FusionLearner:
        """Return a learner of these channels that was shown the same and has a ranker.

        Raises ValueError when that was too little for a ranker.
        """
        settings = self._settings.model_copy(update={"channels": channels})
        learner, rng = (
            FusionLearner(settings, temperature=self._factor),
            np.random.default_rng(seed),
        )
        for tell in self._shown:
            tell(learner, rng)
        if not learner.refit(seed=seed):
            raise ValueError("the log holds out too few clicks to fit a ranker on")
        return learner


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("log", help="click log, as for `nextclick evaluate`")
    parser.add_argument("--max-predictions", type=int, help="predict a random subset")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    use_threads(1)
    report = measure(options.log, load_settings(None, {"trainer.seed": options.seed}), options)
    print(json.dumps(report) if options.json else table(report))


def measure(log: str, settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of every choice, and those of each channel's own list."""
    gap_ms = int(settings.trainer.dataset.idle_gap_minutes * _MINUTE_MS)
    recorded = read_recorded(log, Cut(), gap_ms=gap_ms)
    task = Task("static", max_predictions=options.max_predictions, seed=options.seed)
    console = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(prefix="nextclick-ablation-") as folder,
        Progress(console=console, disable=not sys.stderr.isatty()) as progress,
    ):
        around = _surroundings(Path(folder), progress, recorded, task)
        version, witness = first_version(recorded, settings, around)
        tallies = dict(_answered(recorded, task, version, witness, around))
    everything = tallies[CHANNELS]
    return {
        "log": recorded.name,
        "predictions": len(everything),
        "rows": [
            {
                "channels": list(channels),
                **_shown(accuracy(tally.ranks()[1])),
                "below_all": _below(tally, everything, recorded, options.seed),
            }
            for channels, tally in tallies.items()
        ],
        "own_lists": {
            name: _shown(accuracy(ranks_P)) for name, ranks_P in everything.channel_ranks().items()
        },
        "seed": options.seed,
        "environment": environment(),
    }


def choices() -> Iterator[Choice]:
    """Yield each channel alone, each pair, and all of them."""
    yield from combinations(CHANNELS, 1)
    yield from combinations(CHANNELS, 2)
    yield CHANNELS


def first_version(
    recorded: Recorded, settings: Settings, around: Surroundings
) -> tuple[ServingVersion, Witness]:
    """Train on the clicks before the split; return the version, and what its ranker was shown."""
    workshop = Workshop(around.folder, recorded, settings.trainer, Task("static").k)
    witness = Witness(settings.trainer.fusion, temperature=settings.trainer.learning.temperature)
    trained = train_first(
        recorded.history(),
        workshop.store,
        workshop.settings,
        Order(fusion=witness),
        now_ms=recorded.split_ms,
        report=around.show_training,
    )
    return workshop.load(announcement(trained.published)), witness


def of_channels(version: ServingVersion, learner: FusionLearner) -> ServingVersion:
    """Return the version with the channels and the ranker of a learner; the rest is shared."""
    bundle = version.bundle
    manifest = msgspec.structs.replace(
        bundle.manifest, features=FEATURES, channels=learner.channels
    )
    return serving_version(
        replace(bundle, manifest=manifest, ranker=learner.weights),
        *(version.index, version.number, len(version.popular_rows_P)),
    )


def _answered(
    recorded: Recorded,
    task: Task,
    version: ServingVersion,
    witness: Witness,
    around: Surroundings,
) -> Iterator[tuple[Choice, Tally]]:
    """Answer the test period with each choice, one after the other."""
    for channels in choices():
        chosen = of_channels(version, witness.fitted(channels, seed=task.seed))
        reign = Reign(recorded.first_test, len(recorded), chosen)
        yield channels, predict(recorded, task, iter([reign]), around)[0]


def _surroundings(folder: Path, progress: Progress, recorded: Recorded, task: Task) -> Surroundings:
    """Return a folder, a clock and two bars: one for the training, one for all rows together."""
    each = len(recorded.predictions(task.max_predictions, seed=task.seed))
    training = progress.add_task("clicks learnt", total=None)
    rows = progress.add_task("clicks predicted", total=each * len(list(choices())))
    done = {"before": 0, "last": 0}

    def show_predictions(num: int) -> None:
        if num < done["last"]:  # the next row has begun
            done["before"] += each
        done["last"] = num
        progress.update(rows, completed=done["before"] + num)

    return Surroundings(
        folder,
        time.process_time,
        lambda at: progress.update(training, completed=at.clicks, total=at.total_clicks),
        show_predictions,
    )


def _below(
    tally: Tally, everything: Tally, recorded: Recorded, seed: int
) -> dict[str, list[float]]:
    """Return the 95 % intervals of what all channels have more, prediction by prediction."""
    points_P, ranks_P = everything.ranks()
    others_P = tally.ranks()[1]
    more_PM = np.stack(
        [value(ranks_P) - value(others_P) for value in (hits, reciprocal_ranks)], axis=1
    )
    bounds = session_intervals(recorded.session_F[points_P], more_PM, seed=seed)
    names = ("recall@20", "mrr@20")
    return {name: [round(end, 4) for end in ends] for name, ends in zip(names, bounds, strict=True)}


def _shown(figures: Accuracy) -> dict[str, float]:
    return {"recall@20": round(figures.recall, 4), "mrr@20": round(figures.mrr, 4)}


def table(report: dict[str, Any]) -> str:
    """Return the rows as text."""
    lines = [f"{report['log']}: recall@20 / mrr@20 of {report['predictions']:,} predictions"]
    named = [(" + ".join(row["channels"]), row) for row in report["rows"]]
    named += [(f"{name}, its own order", row) for name, row in report["own_lists"].items()]
    lines += [f"{name:<30}{row['recall@20']:.4f} / {row['mrr@20']:.4f}" for name, row in named]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
