"""`nextclick train`: a first version from a click log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import ConfigOption, JsonOption

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from cli.settings import Settings
    from stream.click_log import ClickLog
    from trainer.bootstrap import Advance
    from trainer.first import FirstVersion, Order


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(train)


def train(  # noqa: PLR0913, PLR0917  # a command has as many arguments as it has flags
    file: Annotated[
        str,
        typer.Argument(help="Click log: .parquet, .csv, .jsonl, or a folder with events.parquet."),
    ],
    out: Annotated[str, typer.Option(help="Store to put the version into: folder or URL.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder for a checkpoint; `nextclick trainer` continues it.")
    ] = None,
    dim: Annotated[
        int | None, typer.Option(min=4, max=1024, help="Vector size; default by size of the log.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, max=100, help="Passes; default by size of the log.")
    ] = None,
    negatives: Annotated[
        int | None, typer.Option(min=1, max=65_536, help="Negatives drawn per batch.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a first version from a click log; its latest sessions measure, then teach it.

    Example: nextclick train clicks.csv --out nextclick-models --checkpoint nextclick-checkpoints
    """
    from cli.roles import single_thread
    from cli.settings import load_settings
    from stream.click_log import read_click_log
    from trainer.first import Order, TrainingFailedError

    single_thread()
    settings = load_settings(config, {"trainer.seed": seed})
    order = Order(dim, epochs, negatives, checkpoint_dir=checkpoint)
    try:
        report = _train(read_click_log(file), out, settings, order, hidden=as_json)
    except (TrainingFailedError, ValueError, OSError) as error:
        typer.echo(f"nextclick: {error}", err=True)
        raise typer.Exit(1) from None
    _print(report, as_json=as_json)


def _train(
    log: ClickLog, out: str, settings: Settings, order: Order, *, hidden: bool
) -> dict[str, Any]:
    """Train with a progress bar and return what to print."""
    import time

    from model.store import Store
    from trainer.first import train_first

    started = time.monotonic()
    with _progress(hidden=hidden) as show:
        first = train_first(
            log,
            Store(out),
            settings.trainer,
            order,
            now_ms=int(time.time() * 1000),
            report=show,
        )
    return _summary(first, time.monotonic() - started)


def _summary(first: FirstVersion, seconds: float) -> dict[str, Any]:
    manifest = first.published.manifest
    return {
        "version": manifest.version,
        "uri": first.published.uri,
        "manifest_sha256": first.published.manifest_sha256,
        "items": first.num_items,
        "dim": manifest.encoder.dim,
        "clicks": first.clicks_learnt,
        "seconds": round(seconds, 2),
        "clicks_per_second": round(first.clicks_learnt / seconds),
        "predictions": first.holdout.num,
        "recall@20": round(first.holdout.recall, 4),
        "mrr@20": round(first.holdout.mrr, 4),
    }


def _progress(*, hidden: bool) -> AbstractContextManager[Callable[[Advance], None]]:
    """Return a bar on stderr, where it disturbs nobody who reads the output."""
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    @contextmanager
    def bar() -> Iterator[Callable[[Advance], None]]:
        console = Console(stderr=True)
        columns = (
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  loss {task.fields[loss]:.3f}"),
            TimeRemainingColumn(),
        )
        off = hidden or not console.is_terminal
        with Progress(*columns, console=console, disable=off) as progress:
            task = progress.add_task("train", total=None, epoch=1, loss=0.0)

            def show(advance: Advance) -> None:
                progress.update(
                    task,
                    total=advance.total_clicks,
                    completed=advance.clicks,
                    epoch=advance.epoch,
                    loss=advance.loss,
                )

            yield show

    return bar()


def _print(report: dict[str, Any], *, as_json: bool) -> None:
    import msgspec

    from cli.tables import print_table

    if as_json:
        typer.echo(msgspec.json.encode(report).decode())
    else:
        print_table(("first version", ""), [(name, str(value)) for name, value in report.items()])
