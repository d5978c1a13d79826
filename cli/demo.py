"""`nextclick demo`: the whole system on one machine, shown, stopped and verified."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from cli.options import ConfigOption, JsonOption

_HISTORY = 30_000

ClicksOption = Annotated[
    str | None,
    typer.Option(
        help="Click log to learn from and to replay instead of simulated clicks: .parquet, .csv,"
        " .jsonl, or a folder with events.parquet.",
        metavar="FILE",
    ),
]
SecondsOption = Annotated[
    float | None, typer.Option(help="How long clicks flow.", show_default="until Ctrl-C", min=1)
]
RateOption = Annotated[
    float | None, typer.Option(help="Clicks per second.", show_default="300", min=1, max=100_000)
]
HistoryOption = Annotated[
    int, typer.Option(help="Simulated clicks to train the first version on.", min=1_000)
]
SeedOption = Annotated[int, typer.Option(help="Seed of the simulated clicks.", min=0)]
PartitionsOption = Annotated[
    int | None, typer.Option(help="Partitions of the topics.", show_default="4", min=1, max=64)
]
BrokersOption = Annotated[
    str | None,
    typer.Option(
        "--bootstrap-servers",
        help="Use these Kafka brokers, with topics under new names, instead of a local one.",
        metavar="LIST",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(  # noqa: PLR0913, PLR0917  # a command has as many arguments as it has flags
    clicks: ClicksOption = None,
    seconds: SecondsOption = None,
    rate: RateOption = None,
    history: HistoryOption = _HISTORY,
    seed: SeedOption = 1,
    partitions: PartitionsOption = None,
    bootstrap_servers: BrokersOption = None,
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

    from cli.demo_run import Order, run
    from cli.demo_summary import print_summary
    from cli.interrupts import Interrupts

    order = Order(clicks, seconds, rate, history, seed, bootstrap_servers, partitions, config)
    interrupts = Interrupts()
    with _clear_errors(), interrupts.installed():
        summary, whole = run(order, Console(stderr=True), interrupts)
    print_summary(summary, as_json=as_json)
    if not whole:
        raise typer.Exit(1)


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
