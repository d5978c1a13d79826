"""`nextclick demo`: the whole system on one machine, wired, watched, stopped and verified."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import ConfigOption, JsonOption

if TYPE_CHECKING:
    from rich.console import Console

    from cli.demo_home import DemoHome
    from cli.demo_roles import RoleProcess, Roles
    from cli.demo_stream import Streaming
    from cli.interrupts import Interrupts
    from cli.scoreboard import Scoreboard
    from cli.settings import Settings
    from cli.steps import Steps
    from cli.traffic import Traffic

_READY_SECONDS = 60.0
_RATE = 300.0
_HISTORY = 30_000


@dataclass(frozen=True)
class Order:
    """What was asked for on the command line."""

    clicks: str | None
    seconds: float | None
    rate: float | None
    history: int
    seed: int
    bootstrap_servers: str | None
    partitions: int | None
    config: Path | None


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(  # noqa: PLR0913, PLR0917  # a command has as many arguments as it has flags
    clicks: Annotated[
        str | None,
        typer.Option(
            help="Click log to learn from and to replay instead of simulated clicks: .parquet,"
            " .csv, .jsonl, or a folder with events.parquet.",
            metavar="FILE",
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(help="How long clicks flow.", show_default="until Ctrl-C", min=1),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Clicks per second.", show_default="300", min=1, max=100_000),
    ] = None,
    history: Annotated[
        int, typer.Option(help="Simulated clicks to train the first version on.", min=1_000)
    ] = _HISTORY,
    seed: Annotated[int, typer.Option(help="Seed of the simulated clicks.", min=0)] = 1,
    partitions: Annotated[
        int | None, typer.Option(help="Partitions of the topics.", show_default="4", min=1, max=64)
    ] = None,
    bootstrap_servers: Annotated[
        str | None,
        typer.Option(
            help="Use these Kafka brokers, with topics under new names, instead of a local one.",
            metavar="LIST",
        ),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show everything at work: Kafka, clicks, a worker that answers, a trainer that learns.

    It starts a local Apache Kafka, trains a first version, runs `nextclick worker` and
    `nextclick trainer`, publishes clicks, shows what happens, stops all of it and checks every
    click. Nothing is left running; the data stay for `nextclick verify` until the next demo.

    Examples:

        nextclick demo

        nextclick demo --clicks clicks.parquet --seconds 120
    """
    from rich.console import Console

    from cli.demo_summary import print_summary
    from cli.interrupts import Interrupts

    order = Order(clicks, seconds, rate, history, seed, bootstrap_servers, partitions, config)
    interrupts = Interrupts()
    with _clear_errors(), interrupts.installed():
        summary, whole = _run(order, Console(stderr=True), interrupts)
    print_summary(summary, as_json=as_json)
    if not whole:
        raise typer.Exit(1)


def _run(order: Order, console: Console, interrupts: Interrupts) -> tuple[dict[str, Any], bool]:
    """Run a demo in numbered steps; return the summary, and whether all is as it must be.

    1. Kafka and topics.  2. A first version.  3. The roles.  4. Clicks.  5. Stop.  6. Verify.
    """
    from cli import demo_system
    from cli.demo_home import default_home
    from cli.demo_roles import Roles
    from cli.demo_summary import summarise
    from cli.steps import Steps
    from cli.verify import audit

    home, steps = default_home(), Steps(console)
    with ExitStack() as stack:
        stack.enter_context(home.held())
        home.wipe()
        settings = _prepare(order, home, steps, stack)
        traffic = _traffic(order)
        first = demo_system.train(traffic.history, settings, home, steps)
        demo_system.announce(first, settings)
        worker, trainer = demo_system.role_processes(settings, home)
        roles = stack.enter_context(Roles(worker, trainer))
        stack.callback(interrupts.ignore)
        with steps.step("Starting worker and trainer"):
            roles.start(_READY_SECONDS)
        cpu_seconds, started = worker.cpu_seconds(), time.monotonic()
        board = _board(settings, traffic)
        with _streaming(settings, board, roles, trainer, console) as streaming:
            stop = Event()
            with interrupts.asking(stop):
                published = streaming.run(traffic.clicks, stop, order.seconds)
        seconds = time.monotonic() - started
        cpu_seconds = worker.cpu_seconds() - cpu_seconds
        with steps.step("Stopping worker and trainer"):
            roles.stop()
        with steps.step("Verifying every click and session"):
            report = audit(settings)
    summary = summarise(report, board, cpu_seconds=cpu_seconds, seconds=seconds)
    summary["bootstrap_servers"] = settings.kafka.bootstrap_servers
    return summary, not report.violations and not report.pending and report.clicks >= published


def _prepare(order: Order, home: DemoHome, steps: Steps, stack: ExitStack) -> Settings:
    """Have a broker with topics, and the settings of the run in a file."""
    from cli import demo_system
    from cli.demo_settings import Place, demo_settings, write_settings
    from stream import topics

    servers = order.bootstrap_servers or stack.enter_context(demo_system.own_kafka(home, steps))
    place = Place(servers, order.bootstrap_servers is not None, order.partitions)
    settings = demo_settings(order.config, home, place, seconds=order.seconds)
    write_settings(settings, home.config)
    with steps.step("Creating the topics"):
        created = topics.ensure(settings.kafka, settings.topics)
    steps.say(f"Kafka at {servers}, topics {', '.join(created)}")
    return settings


def _traffic(order: Order) -> Traffic:
    from cli.traffic import recorded, simulated

    now_ms = int(time.time() * 1_000)
    if order.clicks is None:
        return simulated(order.seed, order.rate or _RATE, order.history, now_ms)
    from stream.click_log import read_click_log

    return recorded(read_click_log(order.clicks), order.seconds, order.rate, now_ms)


def _board(settings: Settings, traffic: Traffic) -> Scoreboard:
    from cli.scoreboard import Scoreboard

    half_life_ms = settings.trainer.learning.count_half_life_hours * 3_600_000
    if traffic.truth is None:
        board = Scoreboard(half_life_ms=half_life_ms)
    else:
        board = Scoreboard(half_life_ms=half_life_ms, best_rate_of=traffic.truth.take)
    board.add_history(traffic.history.item_ids, traffic.history.times_ms.tolist())
    return board


@contextmanager
def _streaming(
    settings: Settings, board: Scoreboard, roles: Roles, trainer: RoleProcess, console: Console
) -> Iterator[Streaming]:
    """Yield the streaming phase, its clients open."""
    from cli.demo_stream import Streaming
    from cli.live import make_view
    from cli.observer import Observer
    from stream import clients
    from stream.publisher import ClickPublisher

    name = f"{settings.kafka.app}-demo"
    producer = clients.producer(settings.kafka, client_id=name)
    reader = clients.reader(settings.kafka, client_id=name)
    try:
        yield Streaming(
            publisher=ClickPublisher(producer, settings.topics.clicks),
            observer=Observer(reader, settings.topics, board),
            board=board,
            roles=roles,
            trainer=trainer,
            view=make_view(console),
        )
    finally:
        reader.close()
        producer.close(timeout=5)


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Turn what can go wrong into one message and exit code 1."""
    from cli.demo_home import DemoBusyError
    from cli.demo_roles import RoleError
    from cli.traffic import TrafficError
    from stream.click_log import ClickLogError
    from stream.local_kafka import KafkaDirectoryError, KafkaStartError, KafkaUnavailableError
    from stream.publisher import PublishError
    from trainer.first import TrainingFailedError

    try:
        yield
    except (
        *(DemoBusyError, RoleError, TrafficError, ClickLogError, PublishError),
        *(KafkaDirectoryError, KafkaStartError, KafkaUnavailableError, TrainingFailedError),
    ) as error:
        typer.echo(f"nextclick: {error}", err=True)
        raise typer.Exit(1) from None
