"""`nextclick worker`: constructs a worker from the settings and runs it until a signal."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import typer

from cli.options import BootstrapOption, ConfigOption, kafka_overrides

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.settings import Settings
    from stream.batch import Committer
    from stream.kafka_types import KafkaConsumer, KafkaProducer
    from stream.monitor import Health
    from worker.answering import Answering
    from worker.metrics import WorkerMetrics
    from worker.refresh import VersionFollower
    from worker.worker import Worker

_MIB = 1024 * 1024


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(worker)


def worker(config: ConfigOption = None, bootstrap_servers: BootstrapOption = None) -> None:
    """Answer clicks with recommendations until SIGTERM or Ctrl-C.

    Run as many as there are partitions; each takes its share. Settings come from --config, from the
    environment (NEXTCLICK_WORKER__BATCH__MAX_CLICKS=200) and from flags; `nextclick config show`
    lists them. Exit codes: 0 stopped, 70 bug or watchdog, 71 sessions and offsets disagree, 74
    damaged records, 75 Kafka unavailable, 77 not allowed, 78 wrong configuration.

    Example: nextclick worker --config nextclick.toml
    """
    from cli.logs import configure_logs
    from cli.roles import run_role
    from cli.settings import load_settings

    settings = load_settings(config, kafka_overrides(bootstrap_servers))
    configure_logs()
    run_role(lambda: _construct(settings), name="worker")


def _construct(settings: Settings) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return what runs the worker and what stops it; everything is wired here."""
    from prometheus_client import PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry

    from stream.monitor import Health, Watchdog, serve_metrics
    from stream.topics import check
    from worker.metrics import WorkerMetrics
    from worker.worker import CONDITIONS

    check(settings.kafka, settings.topics)
    registry = CollectorRegistry()
    registry.register(PROCESS_COLLECTOR)
    registry.register(PLATFORM_COLLECTOR)
    metrics = WorkerMetrics(registry)
    health = Health(CONDITIONS, max_silence_seconds=settings.kafka.max_poll_interval_ms / 1000)
    server = serve_metrics(registry, health, settings.metrics.host, settings.metrics.worker_port)
    serving = construct_worker(settings, metrics, health)
    # A flush, a commit and the question what was committed may each take that long.
    longest = 3 * settings.kafka.delivery_timeout_ms / 1000
    watchdog = Watchdog(health, limit_seconds=30.0 + longest)

    def run() -> None:
        watchdog.start()
        try:
            serving.run()
        finally:
            watchdog.stop()
            if server is not None:
                server.close()

    return run, serving.stop


def construct_worker(settings: Settings, metrics: WorkerMetrics, health: Health) -> Worker:
    """Wire a worker from the settings; its follower is already running."""
    from stream import clients
    from worker.restore import Restorer
    from worker.takeover import Takeover
    from worker.worker import Parts, Worker

    kafka, topics, own = settings.kafka, settings.topics, settings.worker
    name = f"{kafka.app}-worker"
    consumer = clients.click_consumer(
        *(kafka, settings.processing), client_id=name, max_poll_records=own.batch.max_clicks
    )
    committer = _committer(settings, consumer, health, client_id=name)
    takeover = Takeover(
        consumer=consumer,
        restorer=Restorer(kafka, topics.sessions, name),
        committer=committer,
        settings=own,
        topics=topics,
        guarantee=settings.processing.guarantee,
        health=health,
        metrics=metrics,
    )
    parts = Parts(
        consumer=consumer,
        committer=committer,
        takeover=takeover,
        follower=_follower(settings, metrics),
        answering=_answering(settings, metrics),
        metrics=metrics,
        health=health,
    )
    return Worker(parts, own, topics.clicks)


def _answering(settings: Settings, metrics: WorkerMetrics) -> Answering:
    from importlib.metadata import version

    import numpy as np

    from worker.answering import Answering
    from worker.outputs import Writer

    topics, own = settings.topics, settings.worker
    writer = Writer(
        *(topics, own.ranking),
        app=settings.kafka.app,
        app_version=version("nextclick"),
        guarantee=settings.processing.guarantee,
    )
    rng = np.random.default_rng()
    return Answering(own, writer, metrics, num_partitions=topics.partitions, rng=rng)


def _committer(
    settings: Settings, consumer: KafkaConsumer, health: Health, *, client_id: str
) -> Committer:
    """Return the commit protocol of the configured guarantee, with its producer."""
    from stream import clients
    from stream.at_least_once import AtLeastOnce
    from stream.exactly_once import ExactlyOnce

    kafka, processing = settings.kafka, settings.processing
    # Without a lasting name the brokers end a crashed process's transaction only by its timeout.
    slot = processing.slot or uuid4().hex[:12]
    exactly_once = processing.guarantee == "exactly_once"

    def make_producer() -> KafkaProducer:
        if exactly_once:
            return clients.transactional_producer(kafka, processing, client_id=client_id, slot=slot)
        return clients.producer(kafka, client_id=client_id)

    topics = settings.topics
    return (ExactlyOnce if exactly_once else AtLeastOnce)(
        *(consumer, make_producer, (topics.recommendations, topics.sessions, topics.dead_letters)),
        delivery_timeout_seconds=kafka.delivery_timeout_ms / 1000,
        beat=health.beat_in_wait,
    )


def _follower(settings: Settings, metrics: WorkerMetrics) -> VersionFollower:
    from stream import clients
    from worker.refresh import VersionFollower, VersionLoader
    from worker.sessions import RING

    kafka, own = settings.kafka, settings.worker
    # A list may have to leave out a whole session and the click itself.
    num_popular = own.ranking.k + RING + 1
    follower = VersionFollower(
        lambda: clients.reader(kafka, client_id=f"{kafka.app}-versions"),
        VersionLoader(
            settings.store.url,
            max_bytes=own.max_bundle_mib * _MIB,
            num_popular=num_popular,
        ),
        metrics,
        topic=settings.topics.models,
        model=own.model,
    )
    follower.start()
    return follower
