"""`nextclick trainer`: constructs a trainer from the settings and runs it until a signal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from cli.options import BootstrapOption, ConfigOption, kafka_overrides

if TYPE_CHECKING:
    from cli.roles import Role
    from cli.settings import Settings
    from stream.click_feed import ClickFeed
    from trainer.trainer import Surroundings, Trainer

_WATCHDOG_SECONDS = 300.0  # storing a large version takes its time
_DAY_MS = 86_400_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(trainer)


def trainer(config: ConfigOption = None, bootstrap_servers: BootstrapOption = None) -> None:
    """Learn from clicks and publish versions until SIGTERM or Ctrl-C; run exactly one per model.

    It continues from its checkpoint, else from the version announced last, else from nothing.
    Settings come from --config, from the environment (NEXTCLICK_TRAINER__PUBLISH_SECONDS=60) and
    from flags; `nextclick config show` lists them. Exit codes: 0 stopped, 70 bug or watchdog, 75
    Kafka unavailable, 77 not allowed, 78 wrong configuration.

    Example: nextclick trainer --config nextclick.toml
    """
    from cli.logs import configure_logs
    from cli.roles import run_role
    from cli.settings import load_settings

    settings = load_settings(config, kafka_overrides(bootstrap_servers))
    configure_logs()
    run_role(lambda: _construct(settings), name="trainer")


def _construct(settings: Settings) -> Role:
    """Return what runs the trainer and what stops it; everything is wired here."""
    import time
    from threading import Event

    from prometheus_client import PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry

    from stream.monitor import Health, Watchdog, serve_metrics
    from stream.topics import check
    from trainer.metrics import TrainerMetrics
    from trainer.trainer import CONDITIONS, Surroundings

    check(settings.kafka, settings.topics)
    registry = CollectorRegistry()
    registry.register(PROCESS_COLLECTOR)
    registry.register(PLATFORM_COLLECTOR)
    metrics = TrainerMetrics(registry)
    health = Health(CONDITIONS, max_silence_seconds=_WATCHDOG_SECONDS)
    server = serve_metrics(registry, health, settings.metrics.host, settings.metrics.trainer_port)
    around = Surroundings(metrics, health, time.monotonic, lambda: int(time.time() * 1000))
    learning = construct_trainer(settings, around)
    watchdog = Watchdog(health, limit_seconds=_WATCHDOG_SECONDS)
    stopping = Event()

    def run() -> None:
        watchdog.start()
        try:
            learning.run(stopping.is_set)
        finally:
            watchdog.stop()
            if server is not None:
                server.close()

    return run, stopping.set


def construct_trainer(settings: Settings, around: Surroundings) -> Trainer:
    """Wire a trainer from the settings; its feed stands where the checkpoint says."""
    from model.store import Store
    from stream.announcements import ModelsTopic
    from trainer.releases import Releases
    from trainer.start import begin, read_version
    from trainer.trainer import Trainer

    own = settings.trainer
    topic = ModelsTopic(
        settings.kafka, settings.topics.models, client_id=f"{settings.kafka.app}-trainer"
    )
    found = topic.latest(own.model)
    serving = None if found is None else read_version(found, own.max_model_bytes)
    stream, position = begin(own, serving)
    releases = Releases(
        Store(settings.store.url), topic.announce, own, lambda kind: topic.latest(own.model, kind)
    )
    if found is not None:
        releases.follow(stream, found, serving)
        around.metrics.show_model(found)
    feed = _feed(settings)
    feed.start(position.offsets, start_from=own.start_from)
    learning = Trainer(feed, stream, releases, own, around)
    learning.resume(position)
    return learning


def _feed(settings: Settings) -> ClickFeed:
    from stream import clients
    from stream.click_feed import ClickFeed

    consumer = clients.trainer_consumer(
        settings.kafka,
        client_id=f"{settings.kafka.app}-trainer",
        max_poll_records=settings.trainer.poll_records,
    )
    return ClickFeed(
        consumer, settings.topics.clicks, ttl_ms=int(settings.trainer.dataset.ttl_days * _DAY_MS)
    )
