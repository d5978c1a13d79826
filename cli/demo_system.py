"""The parts of a demo: its broker, its first version, its two roles; knows no click."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli.demo_home import DemoHome
from cli.demo_roles import RoleProcess
from cli.traffic import TrafficError

if TYPE_CHECKING:
    from cli.settings import Settings
    from cli.steps import Steps
    from stream.click_log import ClickLog
    from stream.messages import ModelAnnouncement


@contextmanager
def own_kafka(home: DemoHome, steps: Steps) -> Iterator[str]:
    """Run a broker over the demo's directory, yield its address, stop it."""
    from stream.local_kafka import LocalKafka, ensure_runtime

    with steps.step("Starting Apache Kafka") as say:
        runtime = ensure_runtime(lambda done, total: say(f"fetching {done} of {total} jars"))
        say("waiting for the broker")
        kafka = LocalKafka(home.kafka, runtime=runtime)
        kafka.start()
    try:
        yield kafka.bootstrap_servers
    finally:
        kafka.stop()


def bring_out_first(log: ClickLog, settings: Settings, home: DemoHome, steps: Steps) -> None:
    """Train, store and announce the first version; the trainer goes on from its checkpoint.

    Raises TrainingFailedError, or TrafficError for clicks with nothing to learn.
    """
    _announce(_train(log, settings, home, steps), settings)


def _train(log: ClickLog, settings: Settings, home: DemoHome, steps: Steps) -> ModelAnnouncement:
    from cli.roles import single_thread
    from model.store import Store
    from trainer.bootstrap import Advance
    from trainer.first import Order, train_first
    from trainer.publish import announcement

    single_thread()
    order = Order(dim=settings.trainer.learning.dim, checkpoint_dir=home.checkpoints)
    with steps.step(f"Training a first version on {len(log):,} clicks") as say:

        def report(advance: Advance) -> None:
            say(f"{100 * advance.clicks // max(advance.total_clicks, 1)} %")

        try:
            first = train_first(
                log,
                Store(settings.store.url),
                settings.trainer,
                order,
                now_ms=int(time.time() * 1_000),
                report=report,
            )
        except ValueError as error:
            raise TrafficError(f"these clicks train no model: {error}") from error
    return announcement(first.published)


def _announce(message: ModelAnnouncement, settings: Settings) -> None:
    from stream import announcements, clients

    timeout_seconds = settings.kafka.delivery_timeout_ms / 1_000 + 1
    producer = clients.producer(settings.kafka, client_id=f"{settings.kafka.app}-demo")
    try:
        announcements.announce(
            producer, settings.topics.models, message, timeout_seconds=timeout_seconds
        )
    finally:
        producer.close(timeout=timeout_seconds)


def role_processes(settings: Settings, home: DemoHome) -> tuple[RoleProcess, RoleProcess]:
    """Return the worker and the trainer, not yet started."""
    ports = {"worker": settings.metrics.worker_port, "trainer": settings.metrics.trainer_port}
    worker, trainer = (
        RoleProcess(role, home.config, home.log(role), port) for role, port in ports.items()
    )
    return worker, trainer
