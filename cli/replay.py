"""`nextclick replay`: publish a click log; knows nothing of how clicks are answered."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import BootstrapOption, ConfigOption, JsonOption, kafka_overrides

if TYPE_CHECKING:
    from cli.settings import Settings
    from stream.click_log import ClickLog
    from stream.publisher import PacedClick

_REDRAW_SECONDS = 0.1


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(  # noqa: PLR0913, PLR0917  # a command has as many arguments as it has flags
    file: Annotated[
        str,
        typer.Argument(help="Click log: .parquet, .csv, .jsonl, or a folder with events.parquet."),
    ],
    speed: Annotated[
        str, typer.Option(help="real, a factor such as 60x, or max.", metavar="real|Nx|max")
    ] = "real",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Publish only the first N clicks.", metavar="N")
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Topic to publish to.")] = None,
    config: ConfigOption = None,
    bootstrap_servers: BootstrapOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish a click log as if it happened now; Ctrl-C stops and says how far it came.

    Example: nextclick replay clicks.csv --speed 60x --bootstrap-servers 127.0.0.1:9092
    """
    from cli.settings import load_settings
    from stream.click_log import ClickLogError, read_click_log
    from stream.clients import KafkaUnreachableError

    factor = _factor(speed)
    overrides = kafka_overrides(bootstrap_servers) | {"topics.clicks": topic}
    settings = load_settings(config, overrides)
    try:
        log = read_click_log(file)
        failure = _publish(log, factor, limit or len(log), settings, as_json=as_json)
    except (ClickLogError, KafkaUnreachableError) as error:
        failure = str(error)
    if failure:
        typer.echo(f"nextclick: {failure}", err=True)
        raise typer.Exit(1)


def _factor(speed: str) -> float | None:
    """Return how much faster than recorded; None: as fast as possible."""
    if speed == "max":
        return None
    if speed == "real":
        return 1.0
    try:
        factor = float(speed.removesuffix("x"))
    except ValueError:
        factor = math.nan
    if not 0 < factor < math.inf:
        raise typer.BadParameter(
            f"{speed!r}: accepted are real, a positive factor such as 60x, and max",
            param_hint="--speed",
        )
    return factor


def _publish(
    log: "ClickLog", factor: float | None, limit: int, settings: "Settings", *, as_json: bool
) -> str | None:
    """Publish and report; return why it failed, or None."""
    from stream import clients
    from stream.publisher import ClickPublisher, PublishError, publish_paced

    num_clicks = min(limit, len(log))
    producer = clients.producer(settings.kafka, client_id=f"{settings.kafka.app}-replay")
    publisher = ClickPublisher(producer, settings.topics.clicks)
    failure = None
    started = time.monotonic()
    with _stop_on_signal() as stop, _progress(num_clicks, hidden=as_json) as show:
        try:
            clicks = _paced(log, factor, num_clicks, show)
            publish_paced(publisher, clicks, start_ms=int(time.time() * 1_000), stop=stop)
            publisher.flush()
        except PublishError as error:
            failure = str(error)
        finally:
            producer.close(timeout=5)
    report = {
        "published": publisher.published,
        "failed": publisher.failed,
        "clicks": num_clicks,
        "seconds": round(time.monotonic() - started, 3),
        "stopped": stop.is_set(),
    }
    _print(report, as_json=as_json)
    return failure


def _paced(
    log: "ClickLog", factor: float | None, num_clicks: int, show: Callable[[int], None]
) -> Iterator["PacedClick"]:
    """Yield the first clicks with the time at which each is due."""
    from stream.publisher import PacedClick

    redraw_at = 0.0
    first_ms = log.times_ms[0] if num_clicks else 0
    for row in range(num_clicks):
        due_ms = None if factor is None else float(log.times_ms[row] - first_ms) / factor
        session = log.session_ids[row] if log.session_ids else None
        yield PacedClick(log.user_ids[row], log.item_ids[row], session, due_ms)
        if time.monotonic() > redraw_at:
            show(row + 1)
            redraw_at = time.monotonic() + _REDRAW_SECONDS
    show(num_clicks)


@contextmanager
def _stop_on_signal() -> Iterator[Event]:
    """Set the event on Ctrl-C or SIGTERM instead of ending at once; a second one ends."""
    stop = Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _frame: object) -> None:
        # The signal may find this thread inside `stop.wait`, whose lock `set` needs.
        asked = Thread(target=stop.set, daemon=True)
        asked.start()
        asked.join(0.05)
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(total: int, *, hidden: bool) -> Iterator[Callable[[int], None]]:
    """Draw a bar on stderr, where it disturbs nobody who reads the output."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=hidden or not console.is_terminal) as progress:
        bar = progress.add_task("clicks", total=total)
        yield lambda done: progress.update(bar, completed=done)


def _print(report: dict[str, int | float | bool], *, as_json: bool) -> None:
    import msgspec

    if as_json:
        typer.echo(msgspec.json.encode(report).decode())
        return
    ending = ", stopped on request" if report["stopped"] else ""
    typer.echo(
        f"Published {report['published']:,} of {report['clicks']:,} clicks"
        f" in {report['seconds']:.1f} s{ending}."
    )
