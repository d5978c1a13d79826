"""What learning from the stream gains over a frozen first version; no Kafka.

    python -m benchmarks.stream_learning --clicks 27000 --json
    python -m benchmarks.stream_learning --log events.parquet --set trainer.stream_rate=1.0

Without `--log` the clicks come from the simulator's default world. A first version is trained, its
checkpoint restored, and the following clicks drive the stream learner as the trainer's loop does.
Every click is ranked among all items before it is learnt, by four models: the first version
(`frozen`), the latest published one (`published`), the learner itself (`learner`), and counts of
which item followed which (`successors`, learnt click by click).

Caveats: publishing takes no time here, so a version serves some seconds earlier than it would; a
session that is open at the hand-over continues without its earlier clicks.
"""

import argparse
import json
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks.environment import environment
from model.store import Store
from stream.click_log import ClickLog, read_click_log
from stream.simulator import Simulator, SimulatorSettings
from trainer.evaluate import K, Score, score, target_ranks
from trainer.first import Order, train_first
from trainer.learner import queries
from trainer.settings import TrainerSettings
from trainer.start import begin
from trainer.stream_learner import Frozen, StreamLearner
from trainer.windows import Windows

_MODELS = ("frozen", "published", "learner", "successors")
_START_MS = 1_700_000_000_000
_LOG_HISTORY_SHARE = 0.8  # of a log's time


@dataclass(frozen=True)
class Clicks:
    """Clicks before and after the hand-over; `best_n` bounds the hit rate of the latter."""

    history: ClickLog
    stream: ClickLog
    best_n: "np.ndarray[tuple[int], np.dtype[np.float32]] | None" = None


@dataclass
class Part:
    """The scores of one stretch of clicks, by model."""

    clicks: int = 0
    best: float | None = None
    scores: dict[str, Score] = field(default_factory=lambda: dict.fromkeys(_MODELS, Score()))


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clicks", type=int, default=27_000, help="most clicks to stream")
    parser.add_argument("--history", type=int, default=30_000, help="simulated clicks before them")
    parser.add_argument("--log", help="a click log instead of the simulator")
    parser.add_argument("--rate", type=float, default=300.0, help="clicks a second")
    parser.add_argument("--publish-clicks", type=int, default=3_600)
    parser.add_argument("--part", type=int, default=3_000, help="clicks of one line")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dim", type=int, help="by default as `nextclick train` chooses")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a trainer setting"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = measure(options)
    print(json.dumps(report) if options.json else _table(report))


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return the scores of every part and over all, and what they were measured with."""
    clicks = recorded(options) if options.log else simulated(options)
    with tempfile.TemporaryDirectory() as folder:
        settings = _settings(options.set, Path(folder) / "checkpoints", options.seed)
        started = time.perf_counter()
        stream = first_version(clicks.history, settings, options.dim)
        trained = time.perf_counter()
    run = Run(stream, settings, options)
    parts = run.over(clicks)
    streamed = time.perf_counter()
    total = Part(sum(part.clicks for part in parts))
    for name in _MODELS:
        total.scores[name] = sum((part.scores[name] for part in parts), Score())
    return {
        "clicks": _shown(total),
        "parts": [_shown(part) for part in parts],
        "items": len(stream.learner.items),
        "learning_steps": run.steps,
        "train_seconds": round(trained - started, 1),
        "stream_seconds": round(streamed - trained, 1),
        "seed": options.seed,
        "settings": options.set,
        "environment": environment(),
    }


def simulated(options: argparse.Namespace) -> Clicks:
    """Return clicks of the simulator's default world, evenly spread over time."""
    taken = Simulator(SimulatorSettings(), options.seed).take(options.history + options.clicks)
    steps_n = np.arange(len(taken)) * (1000 / options.rate)
    log = ClickLog(
        taken.user_ids, taken.session_ids, taken.item_ids, _START_MS + steps_n.astype(np.int64)
    )
    first = options.history
    return Clicks(_part(log, 0, first), _part(log, first, None), taken.best_hit_rate_n[first:])


def recorded(options: argparse.Namespace) -> Clicks:
    """Split a log by time; at most `--clicks` follow the hand-over."""
    log = read_click_log(options.log)
    span_ms = float(log.times_ms[-1] - log.times_ms[0])
    middle = int(np.searchsorted(log.times_ms, log.times_ms[0] + span_ms * _LOG_HISTORY_SHARE))
    return Clicks(_part(log, 0, middle), _part(log, middle, middle + options.clicks))


def first_version(log: ClickLog, settings: TrainerSettings, dim: int | None) -> StreamLearner:
    """Train as `nextclick train` does and go on as a trainer does that finds its checkpoint."""
    folder = settings.checkpoint_dir
    train_first(
        log,
        Store(str(folder.parent / "models")),
        settings,
        Order(dim=dim, checkpoint_dir=folder),
        now_ms=int(log.times_ms[-1]),
        report=lambda advance: None,
    )
    return begin(settings, None)[0]


class Run:
    """Drives the stream learner batch by batch and scores each batch before it is learnt."""

    def __init__(
        self, stream: StreamLearner, settings: TrainerSettings, options: argparse.Namespace
    ) -> None:
        self.steps = 0
        self._stream = stream
        self._options = options
        self._batch_clicks = max(1, round(settings.dataset.batch_seconds * options.rate))
        self._first = self._published = _freeze(stream)
        self._successors: defaultdict[int, Counter[int]] = defaultdict(Counter)

    def over(self, clicks: Clicks) -> list[Part]:
        """Stream all clicks and return the scores of each part."""
        size = self._options.part
        self._learn_successors(clicks.history)
        num = -(-len(clicks.stream) // size)
        parts = [Part(min(size, len(clicks.stream) - place * size)) for place in range(num)]
        if clicks.best_n is not None:
            for place, part in enumerate(parts):
                part.best = float(np.nanmean(clicks.best_n[place * size : (place + 1) * size]))
        published_at = 0
        for number in self._learnt_after(clicks.stream):
            part = parts[(number - 1) // size]
            for name, scored in self._step(int(clicks.stream.times_ms[number - 1])):
                part.scores[name] += scored
            if number - published_at >= self._options.publish_clicks:
                self._published, published_at = _freeze(self._stream), number
        return parts

    def _learnt_after(self, log: ClickLog) -> Iterator[int]:
        """Add clicks; stop after those with which a batch is full or its time has come."""
        waiting = 0
        sessions: Sequence[str | None] = log.session_ids or [None] * len(log)
        columns = zip(log.user_ids, sessions, log.item_ids, log.times_ms.tolist(), strict=True)
        for number, click in enumerate(columns, 1):
            self._stream.add(*click)
            waiting += 1
            if self._stream.full or waiting >= self._batch_clicks or number == len(log):
                waiting = 0
                yield number

    def _step(self, time_ms: int) -> Iterator[tuple[str, Score]]:
        self._stream.serve(self._published)  # also begins a new comparison
        if self._stream.step(time_ms) is None:
            return
        self.steps += 1
        yield "published", self._stream.comparison.serving
        yield "learner", self._stream.comparison.candidate
        windows = self._stream.recent[-1]
        yield "frozen", _score(self._first, windows)
        yield "successors", self._score_successors(windows)

    def _score_successors(self, windows: Windows) -> Score:
        """Rank by how often the target followed the item before it, then learn that it did."""
        ranks = []
        before_M = windows.rows_BT[:, :-1][windows.target_mask[:, 1:]]
        for before, target in zip(before_M.tolist(), windows.target_rows.tolist(), strict=True):
            best = [row for row, _ in self._successors[before].most_common(K)]
            ranks.append(best.index(target) + 1 if target in best else K + 1)
            self._successors[before][target] += 1
        return score(np.asarray(ranks, np.int64))

    def _learn_successors(self, log: ClickLog) -> None:
        latest: dict[str, int] = {}
        keys = log.session_ids or log.user_ids
        for key, item_id in zip(keys, log.item_ids, strict=True):
            row = self._stream.learner.items.row(item_id)
            if key in latest:
                self._successors[latest[key]][row] += 1
            latest[key] = row


def _settings(assignments: list[str], checkpoints: Path, seed: int) -> TrainerSettings:
    """Return the defaults with some changed; no click is left out, neither learnt nor scored."""
    values: dict[str, dict[str, object]] = {"dataset": {"user_clicks_per_hour": 1_000_000}}
    trainer: dict[str, object] = {
        "seed": seed,
        "checkpoint_dir": checkpoints,
        "max_predictions": 1_000_000,
    }
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        *section, leaf = name.removeprefix("trainer.").split(".")
        target = values.setdefault(section[0], {}) if section else trainer
        target[leaf] = json.loads(value)
    return TrainerSettings.model_validate(trainer | values)


def _freeze(stream: StreamLearner) -> Frozen:
    learner = stream.learner
    return Frozen(learner.frozen_encoder(), learner.items.unit_vectors())


def _score(version: Frozen, windows: Windows) -> Score:
    queries_MD = queries(version.encoder, version.vectors_ND, windows)
    return score(target_ranks(queries_MD, version.vectors_ND, windows.target_rows))


def _part(log: ClickLog, start: int, stop: int | None) -> ClickLog:
    rows = slice(start, stop)
    sessions = log.session_ids
    return ClickLog(
        log.user_ids[rows],
        None if sessions is None else sessions[rows],
        log.item_ids[rows],
        log.times_ms[rows],
    )


def _shown(part: Part) -> dict[str, object]:
    shown: dict[str, object] = {"clicks": part.clicks, "predictions": part.scores["frozen"].num}
    if part.best is not None:
        shown["best_recall"] = round(part.best, 4)
    for name, scored in part.scores.items():
        shown[name] = {"recall": round(scored.recall, 4), "mrr": round(scored.mrr, 4)}
    return shown


def _table(report: dict[str, object]) -> str:
    lines = ["recall@20 / MRR@20", f"{'clicks':>8}" + "".join(f"{name:>18}" for name in _MODELS)]
    parts = report["parts"]
    assert isinstance(parts, list)
    for part in [*parts, report["clicks"]]:
        cells = [f"{part[name]['recall']:.3f} / {part[name]['mrr']:.3f}" for name in _MODELS]
        lines.append(f"{part['clicks']:>8}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
