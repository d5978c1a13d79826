"""One evaluation from a cut log to its counts: train, predict, under the static protocol learn no
more, under the prequential one go on learning; knows no format.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evaluation.playback import Playback
from evaluation.recorded import Int64, Recorded
from evaluation.stream_learning import StreamLearning
from evaluation.tally import Tally
from evaluation.workshop import Reign, Workshop
from trainer.bootstrap import Advance
from trainer.publish import announcement
from trainer.settings import TrainerSettings
from worker.settings import RankingSettings
from worker.version import ServingVersion

Protocol = Literal["static", "prequential"]


@dataclass(frozen=True, slots=True)
class Task:
    """What to measure; `delay_ms` is the age at which a click is learnt, prequential only.

    `diversity` and `exploration` are those of the worker's ranking.
    """

    protocol: Protocol
    k: int = 20
    delay_ms: int = 0
    max_predictions: int | None = None
    seed: int = 0
    diversity: float = 0.0
    exploration: float = 0.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where files may lie, the clock that work is measured with, and who is told how far it is."""

    folder: Path
    cpu_seconds: Callable[[], float]
    show_training: Callable[[Advance], None]
    show_predictions: Callable[[int], None]


@dataclass(slots=True)
class Work:
    """What an evaluation took: clicks and the seconds spent on them."""

    clicks: int = 0
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Clicks a second, 0 when no time was spent."""
        return self.clicks / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything counted; `clicks_learnt` counts a click at each pass of the training."""

    recorded: Recorded
    task: Task
    settings: TrainerSettings
    tally: Tally
    first: ServingVersion
    num_versions: int
    clicks_learnt: int
    training: Work
    learning: Work
    predicting: Work
    verdicts: dict[str, int]


def evaluate(
    recorded: Recorded, task: Task, settings: TrainerSettings, around: Surroundings
) -> Evaluation:
    """Train on the clicks before the split, then predict those after it in log order.

    Items of the session, the current one too, may be recommended unless the log excludes them.
    Raises ValueError, TrainingFailedError or LearningFailedError with what went wrong.
    """
    workshop = Workshop(around.folder, recorded, settings, task.k)
    started = around.cpu_seconds()
    trained = workshop.first(recorded, around.show_training)
    training = Work(recorded.first_test, around.cpu_seconds() - started)
    first = workshop.load(announcement(trained.published))
    stream: StreamLearning | None = None
    if task.protocol == "prequential":
        stream = StreamLearning(
            *(recorded, workshop, first), delay_ms=task.delay_ms, cpu_seconds=around.cpu_seconds
        )
    reigns = stream.reigns() if stream else iter([Reign(recorded.first_test, len(recorded), first)])
    tally, predicting, num_versions = predict(recorded, task, reigns, around)
    return Evaluation(
        *(recorded, task, settings, tally, first, num_versions, trained.clicks_learnt),
        training=training,
        learning=Work(stream.num_learnt, stream.spent_seconds) if stream else Work(),
        predicting=predicting,
        verdicts=stream.verdicts if stream else {},
    )


def predict(
    recorded: Recorded, task: Task, reigns: Iterator[Reign], around: Surroundings
) -> tuple[Tally, Work, int]:
    """Play the test period, version by version; return also the work and how many versions."""
    tally, work, num_versions = Tally(recorded), Work(), 0
    playback = Playback(recorded, _points(recorded, task), _ranking(recorded, task), tally)
    for reign in reigns:
        started = around.cpu_seconds()
        playback.serve(reign.version)
        if not num_versions:
            playback.catch_up(reign.start)
        playback.play(reign.start, reign.stop, around.show_predictions)
        work.seconds += around.cpu_seconds() - started
        num_versions += 1
    work.clicks = len(tally)
    return tally, work, num_versions


def _points(recorded: Recorded, task: Task) -> Int64:
    return recorded.predictions(task.max_predictions, seed=task.seed)


def _ranking(recorded: Recorded, task: Task) -> RankingSettings:
    exclude: Literal["session", "none"] = "session" if recorded.exclude_seen else "none"
    return RankingSettings(
        k=task.k, exclude=exclude, diversity=task.diversity, exploration=task.exploration
    )
