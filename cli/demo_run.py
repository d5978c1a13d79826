"""One run of the demo, from an empty directory to the verified end; it prints nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from rich.console import Console

from cli import demo_system
from cli.demo_home import DemoHome, default_home
from cli.demo_roles import RoleProcess, Roles
from cli.demo_settings import Place, demo_settings, write_settings
from cli.demo_stream import Streaming
from cli.demo_summary import summarise
from cli.interrupts import Interrupts
from cli.live import make_view
from cli.observer import Observer
from cli.options import kafka_overrides
from cli.scoreboard import Scoreboard
from cli.settings import Settings, load_settings
from cli.steps import Steps
from cli.traffic import Traffic, recorded, simulated
from cli.verify import audit
from stream import clients, topics
from stream.click_log import read_click_log
from stream.publisher import ClickPublisher

_READY_SECONDS = 60.0
_RATE = 300.0


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


@dataclass(frozen=True)
class Stage:
    """What runs and is watched while clicks flow."""

    settings: Settings
    worker: RoleProcess
    trainer: RoleProcess
    roles: Roles
    console: Console


@dataclass(frozen=True)
class Measured:
    """What the streaming phase gave; `cpu_seconds` are the worker's."""

    board: Scoreboard
    published: int
    cpu_seconds: float
    seconds: float


def run(order: Order, console: Console, interrupts: Interrupts) -> tuple[dict[str, Any], bool]:
    """Run a demo in numbered steps; return the summary, and whether all is as it must be.

    1. Clicks.  2. Kafka and topics.  3. A first version.  4. The roles.  5. Stream.  6. Stop.
    7. Verify.
    """
    load_settings(order.config, kafka_overrides(order.bootstrap_servers))  # wrong: nothing begins
    traffic = _traffic(order)
    home, steps = default_home(), Steps(console)
    with ExitStack() as stack:
        stack.enter_context(home.held())
        home.wipe()
        settings = _prepare(order, home, steps, stack)
        demo_system.bring_out_first(traffic.history, settings, home, steps)
        worker, trainer = demo_system.role_processes(settings, home)
        roles = stack.enter_context(Roles(worker, trainer))
        stack.callback(interrupts.ignore)
        with steps.step("Starting worker and trainer"):
            roles.start(_READY_SECONDS)
        measured = _measure(
            order, traffic, Stage(settings, worker, trainer, roles, console), interrupts
        )
        with steps.step("Stopping worker and trainer"):
            roles.stop()
        with steps.step("Verifying every click and session"):
            report = audit(settings)
    summary = summarise(
        report, measured.board, cpu_seconds=measured.cpu_seconds, seconds=measured.seconds
    )
    summary["bootstrap_servers"] = settings.kafka.bootstrap_servers
    short = report.pending or report.clicks < measured.published
    return summary, not report.violations and not short


def _measure(order: Order, traffic: Traffic, stage: Stage, interrupts: Interrupts) -> Measured:
    """Let the clicks flow until they end, the seconds are over, or somebody asks to stop."""
    cpu_seconds, started = stage.worker.cpu_seconds(), time.monotonic()
    board, stop = _board(stage.settings, traffic), Event()
    with _streaming(stage, board) as streaming, interrupts.asking(stop):
        published = streaming.run(traffic.clicks, stop, order.seconds)
    seconds = time.monotonic() - started
    return Measured(board, published, stage.worker.cpu_seconds() - cpu_seconds, seconds)


def _prepare(order: Order, home: DemoHome, steps: Steps, stack: ExitStack) -> Settings:
    """Have a broker with topics, and the settings of the run in a file."""
    servers = order.bootstrap_servers or stack.enter_context(demo_system.own_kafka(home, steps))
    place = Place(servers, order.bootstrap_servers is not None, order.partitions)
    settings = demo_settings(order.config, home, place, seconds=order.seconds)
    write_settings(settings, home.config)
    with steps.step("Creating the topics"):
        created = topics.ensure(settings.kafka, settings.topics)
    steps.say(f"Kafka at {servers}, topics {', '.join(created)}")
    return settings


def _traffic(order: Order) -> Traffic:
    now_ms = int(time.time() * 1_000)
    if order.clicks is None:
        return simulated(order.seed, order.rate or _RATE, order.history, now_ms)
    return recorded(read_click_log(order.clicks), order.seconds, order.rate, now_ms)


def _board(settings: Settings, traffic: Traffic) -> Scoreboard:
    half_life_ms = settings.trainer.learning.count_half_life_hours * 3_600_000
    if traffic.truth is None:
        board = Scoreboard(half_life_ms=half_life_ms)
    else:
        board = Scoreboard(half_life_ms=half_life_ms, best_rate_of=traffic.truth.take)
    board.add_history(traffic.history.item_ids, traffic.history.times_ms.tolist())
    return board


@contextmanager
def _streaming(stage: Stage, board: Scoreboard) -> Iterator[Streaming]:
    """Yield the streaming phase, its clients open."""
    settings = stage.settings
    name = f"{settings.kafka.app}-demo"
    producer = clients.producer(settings.kafka, client_id=name)
    reader = clients.reader(settings.kafka, client_id=name)
    try:
        yield Streaming(
            publisher=ClickPublisher(producer, settings.topics.clicks),
            observer=Observer(reader, settings.topics, board),
            board=board,
            roles=stage.roles,
            trainer=stage.trainer,
            view=make_view(stage.console),
        )
    finally:
        reader.close()
        producer.close(timeout=5)
