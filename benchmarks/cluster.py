"""Three brokers under two applications, one of each guarantee, and what strikes the brokers.

It knows which broker has which role and how long answers stopped; what they contain is judged at
the end by the invariants.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.chaos.invariants import Findings
from benchmarks.chaos.nursery import Nursery
from benchmarks.chaos.system import make_settings
from benchmarks.chaos.versions import Versions
from benchmarks.roles import Roles
from benchmarks.under_load import NUM_ITEMS, Application, Stage
from stream.local_kafka import LocalKafka

GUARANTEES = ("at_least_once", "exactly_once")
BROKERS = PARTITIONS = 3
SLOTS = ("a", "b")
_PER_SECOND = 150.0
_SERVE_SECONDS = 60.0
_RECOVER_SECONDS = 60.0
_TAKE_EFFECT_SECONDS = 1.0
_LEAST_PAUSE_SECONDS = 1.0
_INTERNAL_TOPICS = ("__consumer_offsets", "__transaction_state")
# The product's own values: recovery times are to be quoted.
_TIMEOUTS = {
    "session_timeout_ms": 10_000,
    "heartbeat_interval_ms": 1_000,
    "max_poll_interval_ms": 60_000,
}

Recoveries = Iterator[tuple[str, float]]


class Cluster:
    """Applications on three brokers; `with` starts them and waits until they answer.

    Every method that strikes yields guarantee and seconds until all partitions of its application
    moved again, for those that lost something by it, and returns with all replicas in sync.
    """

    def __init__(self, kafka: LocalKafka, stage: Stage, *, seed: int) -> None:
        self.kafka = kafka
        self.applications = [make_application(stage, name, seed=seed) for name in GUARANTEES]
        self._rng = np.random.default_rng(seed)
        self._roles = Roles(self.applications[0].settings.kafka)
        self._running = ExitStack()

    def __enter__(self) -> Cluster:
        with ExitStack() as stack:
            for application in self.applications:
                stack.enter_context(application)
                application.scale(SLOTS)
            self._await_answers(_SERVE_SECONDS, "the applications serve")
            self._running = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._running.close()

    def finish(self) -> dict[str, Findings]:
        """End the load and judge each application, by guarantee."""
        return {app.settings.processing.guarantee: app.finish() for app in self.applications}

    def kill_leader(self, topic: str) -> Recoveries:
        """Kill -9 a leader of a partition of a topic, by the topic's name in the settings."""

        def leaders(app: Application) -> set[int]:
            name = getattr(app.settings.topics, topic)
            return {self._roles.leader(name, p) for p in range(PARTITIONS)}

        return self._kill_holders(leaders)

    def kill_group_coordinator(self) -> Recoveries:
        """Kill -9 the coordinator of the workers' consumer group."""
        return self._kill_holders(
            lambda app: {self._roles.group_coordinator(app.settings.kafka.app)}
        )

    def kill_transaction_coordinator(self) -> Recoveries:
        """Kill -9 the coordinator of a worker's transactions."""

        def coordinators(app: Application) -> set[int]:
            if app.settings.processing.guarantee != "exactly_once":
                return set()
            ids = [f"{app.settings.kafka.app}-{slot}" for slot in SLOTS]
            return {self._roles.transaction_coordinator(name) for name in ids}

        return self._kill_holders(coordinators)

    def kill_each(self) -> Recoveries:
        """Kill -9 one broker after the other."""
        for broker in self.kafka.broker_ids:
            yield from self._kill(broker, self.applications)

    def restart_each(self) -> Recoveries:
        """Restart one broker after the other, each cleanly."""
        for broker in self.kafka.broker_ids:
            at = time.monotonic()
            self.kafka.restart(broker)
            yield from self._recoveries(at, self.applications)
            self.await_replicas()

    def freeze(self, seconds: float) -> Recoveries:
        """Freeze a broker that coordinates transactions, then let it go on."""
        name = f"{self.applications[-1].settings.kafka.app}-{SLOTS[0]}"
        broker = self._roles.transaction_coordinator(name)
        at = time.monotonic()
        self.kafka.pause(broker)
        self._run_for(seconds)
        self.kafka.resume(broker)
        yield from self._recoveries(at, self.applications)
        self.await_replicas()

    def starve(self, seconds: float) -> Recoveries:
        """Leave one broker of three, less than min.insync.replicas; counts from their return."""
        return self._take_away(self.kafka.broker_ids[1:], seconds)

    def go_away(self, seconds: float) -> Recoveries:
        """Take all brokers away; counts from their return."""
        return self._take_away(self.kafka.broker_ids, seconds)

    def await_replicas(self) -> None:
        """Wait until every replica is in sync."""
        names = [name for app in self.applications for name in _topics(app)]
        wanted = [*names, *_INTERNAL_TOPICS]
        self.applications[0].until(
            lambda: self._roles.fewest_in_sync(wanted) == BROKERS,
            _RECOVER_SECONDS,
            "every replica is in sync",
        )

    def _kill_holders(self, holders: Callable[[Application], set[int]]) -> Recoveries:
        """Kill a broker that has a role for all applications, else one after the other."""
        waiting = [app for app in self.applications if holders(app)]
        while waiting:
            common = set.intersection(*map(holders, waiting)) or holders(waiting[0])
            broker = int(self._rng.choice(sorted(common)))
            struck = [app for app in waiting if broker in holders(app)]
            waiting = [app for app in waiting if app not in struck]
            yield from self._kill(broker, struck)

    def _kill(self, broker: int, struck: Sequence[Application]) -> Recoveries:
        at = time.monotonic()
        self.kafka.kill(broker)
        yield from self._recoveries(at, struck)
        self.kafka.restart(broker)
        self.await_replicas()

    def _take_away(self, victims: Sequence[int], seconds: float) -> Recoveries:
        for broker in victims:
            self.kafka.kill(broker)
        self._run_for(seconds)
        for broker in victims:
            self.kafka.restart(broker)
        yield from self._recoveries(time.monotonic(), self.applications)
        self.await_replicas()

    def _recoveries(self, at: float, struck: Sequence[Application]) -> Recoveries:
        self._run_for(_TAKE_EFFECT_SECONDS)
        self._await_answers(_RECOVER_SECONDS, "every partition is answered again")
        for app in struck:
            pauses = app.pauses(at, least=_LEAST_PAUSE_SECONDS)
            yield app.settings.processing.guarantee, round(max(pauses), 2)

    def _await_answers(self, seconds: float, what: str) -> None:
        for app, since in [(app, app.gauge.latest) for app in self.applications]:
            app.until(partial(app.went_on, since), seconds, what)

    def _run_for(self, seconds: float) -> None:
        self.applications[0].run_for(seconds)


def make_stage(kafka: LocalKafka, nursery: Nursery, directory: Path) -> Stage:
    """Return what applications share, with one stored version."""
    store_url = str(directory / "models")
    published = Versions(store_url, num_items=NUM_ITEMS, seed=0).publish()
    return Stage(kafka.bootstrap_servers, store_url, published, nursery, directory / "workers")


def make_application(
    stage: Stage, guarantee: str, *, seed: int, **sections: Mapping[str, Any]
) -> Application:
    """Return an application with the product's own timeouts and as many replicas as brokers."""
    brokers = stage.bootstrap_servers.count(",") + 1
    prefix = f"c{seed}-{guarantee.replace('_', '-')}-{time.time_ns() % 10**9}-"
    settings = make_settings(
        *(stage.bootstrap_servers, prefix, stage.store_url),
        kafka={**_TIMEOUTS, **sections.get("kafka", {})},
        topics={"partitions": PARTITIONS, "replication_factor": brokers},
        processing={"guarantee": guarantee, **sections.get("processing", {})},
    )
    return Application(stage, settings, seed=seed, per_second=_PER_SECOND)


def _topics(app: Application) -> list[str]:
    names = app.settings.topics
    return [names.clicks, names.sessions, names.recommendations, names.dead_letters]
