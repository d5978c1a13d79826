"""What a worker is made of, wired from the settings; it runs nothing.

Heavy packages are imported in the functions, so that `nextclick --help` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from cli.settings import Settings
    from stream.committer import Committer
    from stream.kafka_types import KafkaConsumer, KafkaProducer
    from stream.monitor import Health
    from worker.answering import Answering
    from worker.metrics import WorkerMetrics
    from worker.refresh import VersionFollower
    from worker.rollback import Rollbacks
    from worker.takeover import Takeover
    from worker.worker import Worker


def construct_worker(settings: Settings, metrics: WorkerMetrics, health: Health) -> Worker:
    """Wire a worker from the settings; its follower is already running."""
    from stream import clients
    from stream.progress import ProgressWatch
    from worker.breaker import CircuitBreaker
    from worker.worker import Parts, Worker

    kafka, own = settings.kafka, settings.worker
    name = f"{kafka.app}-worker"
    consumer = clients.click_consumer(
        *(kafka, settings.processing), client_id=name, max_poll_records=own.batch.max_clicks
    )
    committer = _committer(settings, consumer, health, client_id=name)
    answering = _answering(settings, metrics)
    parts = Parts(
        consumer=consumer,
        committer=committer,
        takeover=_takeover(
            settings, consumer, committer, answering, metrics=metrics, health=health
        ),
        follower=_follower(settings, metrics),
        answering=answering,
        rollbacks=_rollbacks(settings, metrics),
        breaker=CircuitBreaker(own.breaker, metrics.breaker_open, health),
        progress=ProgressWatch(
            *(consumer, metrics.stalled_seconds),
            max_records=own.batch.max_clicks,
            stall_seconds=own.stall_seconds,
        ),
        metrics=metrics,
        health=health,
    )
    return Worker(parts, own, settings.topics.clicks)


def _takeover(
    settings: Settings,
    consumer: KafkaConsumer,
    committer: Committer,
    answering: Answering,
    *,
    metrics: WorkerMetrics,
    health: Health,
) -> Takeover:
    from worker.rebuild import Rebuilder
    from worker.restore import Restorer
    from worker.takeover import Takeover

    kafka, topics, own = settings.kafka, settings.topics, settings.worker
    rebuilder = Rebuilder(
        consumer=consumer,
        committer=committer,
        answering=answering,
        kafka=kafka,
        topics=topics,
        settings=own.sessions,
        guarantee=settings.processing.guarantee,
    )
    restorer = Restorer(
        *(kafka, topics.sessions, f"{kafka.app}-worker"),
        on_mismatch=own.on_mismatch,
        rebuilder=rebuilder,
    )
    return Takeover(
        consumer=consumer,
        restorer=restorer,
        committer=committer,
        settings=own,
        topics=topics,
        guarantee=settings.processing.guarantee,
        health=health,
        metrics=metrics,
    )


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


def _rollbacks(settings: Settings, metrics: WorkerMetrics) -> Rollbacks:
    import time

    from stream.announcements import ModelsTopic
    from worker.rollback import Rollbacks

    kafka = settings.kafka
    topic = ModelsTopic(kafka, settings.topics.models, client_id=f"{kafka.app}-rollback")
    return Rollbacks(topic, metrics, lambda: time.time_ns() // 1_000_000)


def _follower(settings: Settings, metrics: WorkerMetrics) -> VersionFollower:
    from index.candidates import RING
    from stream import clients
    from worker.loader import VersionLoader
    from worker.refresh import VersionFollower

    kafka, own = settings.kafka, settings.worker
    # A list may have to leave out a whole session and the click itself.
    num_popular = own.ranking.k + RING + 1
    follower = VersionFollower(
        lambda: clients.reader(kafka, client_id=f"{kafka.app}-versions"),
        VersionLoader(
            settings.store.url,
            max_bytes=own.max_bundle_bytes,
            num_popular=num_popular,
        ),
        metrics,
        topic=settings.topics.models,
        model=own.model,
    )
    follower.start()
    return follower
