"""A regression that was forced past the gate: the worker notices and rolls back by itself."""

import time
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from model.bundle import load, publish
from model.catalogue import Catalogue
from model.store import Store
from stream.click_log import ClickLog
from stream.simulator import Simulator, SimulatorSettings
from trainer.first import Order, train_first
from trainer.settings import TrainerSettings

pytestmark = pytest.mark.kafka
WORLD = SimulatorSettings(items=300, users=1_000, active_sessions=200, topics=20, truth="off")
HISTORY_CLICKS, BURST = 8_000, 200
CLICKS_PER_SECOND = 400
BAD = "20991123T000000001Z-0000000b"  # later than what is made now


class Shop:
    """Simulated users before and after the split, and the versions that they are shown."""

    def __init__(self, system):
        self.system = system
        self.store = Store(system.settings.store.url)
        self.simulator = Simulator(WORLD, seed=3)
        self.clicks = 0

    def first_version(self):
        """Train a version on the clicks so far."""
        history = self.simulator.take(HISTORY_CLICKS)
        now_ms = time.time_ns() // 1_000_000
        times_ms = now_ms - HISTORY_CLICKS * 1_000 + 1_000 * np.arange(HISTORY_CLICKS)
        log = ClickLog(history.user_ids, history.session_ids, history.item_ids, times_ms)
        order = Order(dim=16, epochs=3)
        settings = TrainerSettings()
        return train_first(
            log, self.store, settings, order, now_ms=now_ms, report=lambda _: None
        ).published

    def shuffled(self, good):
        """Publish the version with every item's vector, rules and neighbours given to another."""
        bundle = load(good.uri, good.manifest_sha256, max_bytes=2**30)
        ids = np.random.default_rng(0).permutation(list(bundle.catalogue.ids)).tolist()
        manifest = msgspec.structs.replace(bundle.manifest, version=BAD)
        return publish(self.store, replace(bundle, catalogue=Catalogue(ids), manifest=manifest))

    def mixed_up(self, good):
        """Publish the version with the same rows, each with what belongs to another item."""
        bundle = load(good.uri, good.manifest_sha256, max_bytes=2**30)
        rows_N = np.random.default_rng(0).permutation(len(bundle.catalogue)).astype(np.int32)
        mixed = replace(
            bundle,
            vectors_ND=bundle.vectors_ND[np.argsort(rows_N)],
            clicks=bundle.clicks._replace(rows_E=rows_N[bundle.clicks.rows_E]),
            manifest=msgspec.structs.replace(bundle.manifest, version=BAD),
            golden=(),
        )
        return publish(self.store, mixed)

    def stream(self, worker, wait_until, *, until, most):
        """Stream bursts, each once the last is answered; return the clicks until it holds."""
        before = self.clicks
        while not until():
            assert self.clicks - before < most, f"not after {self.clicks - before} clicks"
            burst = self.simulator.take(BURST)
            columns = zip(burst.user_ids, burst.session_ids, burst.item_ids, strict=True)
            for user, session, item in columns:
                self.system.click(user, item, session_id=session)
            self.system.flush()
            self.clicks += BURST
            wait_until(lambda: worker.value("clicks_total") == self.clicks, 30, "answered")
        return self.clicks - before


@pytest.fixture
def shop(system):
    return Shop(system)


def versions_of(system):
    """The versions that lists name, in the order of the topic, without repeats next to each."""
    names = [
        recommendation.model.version
        for recommendation in sorted(
            system.recommendations(), key=lambda r: (r.generated_at, r.recommendation_id)
        )
    ]
    return [name for n, name in enumerate(names) if n == 0 or names[n - 1] != name]


def loaded(worker):
    return worker.value("model_loads_total", outcome="loaded", reason="")


@pytest.mark.matrix("F43")
def test_a_regression_is_rolled_back_within_two_minutes_of_stream(shop, wait_until):
    system, good = shop.system, shop.first_version()
    system.announce(good)
    worker = system.start_worker()
    wait_until(lambda: worker.value("assigned_partitions") == 2, 30, "it serves")

    def evaluated():
        return worker.value("next_click_evaluated_total", arm="serving")

    shop.stream(worker, wait_until, until=lambda: evaluated() > 3_000, most=10_000)
    rate = worker.value("next_click_hits_total", arm="serving") / evaluated()
    system.announce(shop.shuffled(good))
    wait_until(lambda: loaded(worker) == 2, 30, "the bad version is loaded")

    two_minutes = CLICKS_PER_SECOND * 120
    clicks = shop.stream(worker, wait_until, until=lambda: loaded(worker) == 3, most=two_minutes)
    end = shop.clicks + 1_000
    shop.stream(worker, wait_until, until=lambda: shop.clicks == end, most=1_000)
    worker.stop()

    assert rate > 0.3
    assert clicks <= 10_000, "25 s of stream"
    assert versions_of(system) == [good.manifest.version, BAD, good.manifest.version]
    assert worker.value("model_rollbacks_total", outcome="announced") == 1
    assert system.verify().violations == []


def test_a_version_on_trial_that_loses_hits_is_withdrawn_and_never_serves(shop, wait_until):
    system, good = shop.system, shop.first_version()
    system.announce(good)
    worker = system.start_worker()
    wait_until(lambda: worker.value("assigned_partitions") == 2, 30, "it serves")
    system.announce(shop.mixed_up(good), kind="canary", share=0.3)
    wait_until(lambda: loaded(worker) == 2, 30, "the bad version is loaded")

    def withdrawn():
        return worker.value("model_rollbacks_total", outcome="withdrawn")

    shop.stream(worker, wait_until, until=withdrawn, most=20_000)
    end = shop.clicks + 1_000
    shop.stream(worker, wait_until, until=lambda: shop.clicks == end, most=1_000)
    worker.stop()

    recommendations = system.recommendations()
    tried = [r for r in recommendations if r.variant == "canary"]
    assert {r.model.version for r in tried} == {BAD}
    assert {r.model.version for r in recommendations if r.variant is None} == {
        good.manifest.version
    }
    assert 0.15 < len(tried) / len(recommendations) < 0.35
    latest = max(recommendations, key=lambda r: r.generated_at).generated_at
    assert max(r.generated_at for r in tried) < latest, "the last lists are all of what serves"
    assert system.verify().violations == []
