"""`nextclick evaluate`: how good recommendations are on a recorded click log."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.options import ConfigOption, JsonOption

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cli.settings import Settings
    from evaluation.evaluate import Task
    from evaluation.recorded import Cut, Recorded
    from trainer.bootstrap import Advance

_MINUTE_MS = 60_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(evaluate)


FileArgument = Annotated[
    str,
    typer.Argument(
        help="Click log: .parquet, .csv, .jsonl, or folder with events.parquet and meta.json."
    ),
]
ProtocolOption = Annotated[
    Literal["static", "prequential"],
    typer.Option(help="Learn before the split and freeze, or go on learning while predicting."),
]
DelayOption = Annotated[
    float, typer.Option(min=0, help="Prequential: learn a click once it is so many seconds old.")
]
LengthOption = Annotated[int, typer.Option("-k", min=1, max=200, help="Items in every list.")]
DaysOption = Annotated[
    float | None, typer.Option(min=0, help="Days of the test period; default as meta.json says.")
]
ShareOption = Annotated[
    float | None, typer.Option(min=0, max=1, help="Part of the log's time that is the test.")
]
LastOption = Annotated[
    int | None, typer.Option(min=1, help="Use only the last so many clicks of the log.")
]
MostOption = Annotated[
    int | None, typer.Option(min=1, help="Predict a random subset; everything is still learnt.")
]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")]
ChannelsOption = Annotated[
    str | None,
    typer.Option(
        help="Channels to join, of rnn, knn, rules, popular: --channels rnn,knn. Default all."
    ),
]
DiversityOption = Annotated[
    float | None,
    typer.Option(min=0, help="How much unlike items go before good ones, as in the worker."),
]
PlotOption = Annotated[
    Path | None, typer.Option(help="Folder for plots, PNG and SVG.", metavar="DIR")
]


def evaluate(  # noqa: PLR0913, PLR0917  # a command has as many arguments as it has flags
    file: FileArgument,
    protocol: ProtocolOption = "static",
    delay: DelayOption = 0.0,
    k: LengthOption = 20,
    days: DaysOption = None,
    frac: ShareOption = None,
    last: LastOption = None,
    max_predictions: MostOption = None,
    seed: SeedOption = None,
    channels: ChannelsOption = None,
    diversity: DiversityOption = None,
    plot: PlotOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure next-click recommendations on a click log with the trainer's and worker's own code.

    The clicks before the test period train a first version as `nextclick train` does. Each later
    one that goes on with a session is predicted from it against the full catalogue, then applied.
    Prequential: the trainer learns these too, at its cadence in stream time, and what its gate
    accepts is swapped in. Items of the session, the current one too, may be recommended, unless
    meta.json says exclude_seen; worker.ranking.exclude does not count. See docs/evaluation.md.

    Example: nextclick evaluate clicks.parquet --protocol prequential --days 1
    """
    from cli.settings import load_settings
    from evaluation.evaluate import Task
    from evaluation.recorded import Cut

    _refuse_contradictions(protocol, delay, days, frac)
    named = channels.split(",") if channels is not None else None
    flags = {"trainer.fusion.channels": named, "worker.ranking.diversity": diversity}
    settings = load_settings(config, flags | {"trainer.seed": seed})
    task = Task(
        *(protocol, k, round(delay * 1_000), max_predictions, settings.trainer.seed),
        diversity=settings.worker.ranking.diversity,
        exploration=settings.worker.ranking.exploration,
    )
    _measure(file, Cut(days, frac, last), task, settings, plot=plot, as_json=as_json)


def _measure(
    file: str, cut: Cut, task: Task, settings: Settings, *, plot: Path | None, as_json: bool
) -> None:
    """Measure, print and draw; what a log or a training lacks is one line and exit code 1."""
    from cli.evaluate_tables import print_report
    from cli.logs import configure_logs
    from cli.roles import single_thread
    from evaluation.recorded import read_recorded
    from trainer.first import TrainingFailedError
    from trainer.trainer import LearningFailedError

    draw = _plotter(plot)
    single_thread()
    configure_logs("WARNING")
    gap_ms = int(settings.trainer.dataset.idle_gap_minutes * _MINUTE_MS)
    try:
        recorded = read_recorded(file, cut, gap_ms=gap_ms)
        report = _evaluated(recorded, task, settings, hidden=as_json)
    except (TrainingFailedError, LearningFailedError, ValueError, OSError) as error:
        typer.echo(f"nextclick: {error}", err=True)
        raise typer.Exit(1) from None
    print_report(report, as_json=as_json)
    draw(report)


def _refuse_contradictions(
    protocol: str, delay: float, days: float | None, frac: float | None
) -> None:
    if delay and protocol == "static":
        raise typer.BadParameter(
            "--delay needs --protocol prequential: static learns no test click"
        )
    if days is not None and frac is not None:
        raise typer.BadParameter("give --days or --frac, not both")


def _plotter(folder: Path | None) -> Callable[[dict[str, Any]], None]:
    """Return what draws a report, and find out before the work whether it can."""
    if folder is None:
        return lambda report: None
    try:
        from evaluation.plots import draw
    except ImportError:
        typer.echo("nextclick: --plot needs matplotlib: pip install nextclick[plot]", err=True)
        raise typer.Exit(1) from None
    folder.mkdir(parents=True, exist_ok=True)

    def draw_and_say(report: dict[str, Any]) -> None:
        for file in draw(report, folder):
            typer.echo(str(file), err=True)

    return draw_and_say


def _evaluated(
    recorded: Recorded, task: Task, settings: Settings, *, hidden: bool
) -> dict[str, Any]:
    """Evaluate with a progress bar, in a folder that is removed afterwards."""
    import time
    from tempfile import TemporaryDirectory

    from evaluation.evaluate import Surroundings
    from evaluation.evaluate import evaluate as measure
    from evaluation.report import report

    started = time.monotonic()
    predictions = len(recorded.predictions(task.max_predictions, seed=task.seed))
    with (
        TemporaryDirectory(prefix="nextclick-evaluate-") as folder,
        _progress(predictions, hidden=hidden) as (show_training, show_predictions),
    ):
        around = Surroundings(Path(folder), time.process_time, show_training, show_predictions)
        found = measure(recorded, task, settings.trainer, around)
    return report(found) | {"seconds": round(time.monotonic() - started, 2)}


@contextmanager
def _progress(
    predictions: int, *, hidden: bool
) -> Iterator[tuple[Callable[[Advance], None], Callable[[int], None]]]:
    """Show bars on stderr, where they disturb nobody who reads the output."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,} of {task.total:,}"),
        TimeRemainingColumn(),
    )
    off = hidden or not console.is_terminal
    with Progress(*columns, console=console, disable=off) as progress:
        training = progress.add_task("clicks learnt", total=0)
        predicting = progress.add_task("clicks predicted", total=predictions)

        def show_training(advance: Advance) -> None:
            progress.update(training, total=advance.total_clicks, completed=advance.clicks)

        def show_predictions(done: int) -> None:
            progress.update(predicting, completed=done)

        yield show_training, show_predictions
