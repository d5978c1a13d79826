"""Deltas from the trainer to the answers: served between bundles, each list by the one named."""

import numpy as np
import pytest

from index.item_index import IndexPlan, ItemIndex
from model.bundle import RecentClicks
from model.manifest import bundle_of
from model.store import Store
from stream.announcements import announce
from trainer.fusion_learner import FusionLearner
from trainer.learner import new_learner
from trainer.releases import Releases
from trainer.settings import TrainerSettings
from trainer.stream_learner import StreamLearner
from worker.version import delta_version, serving_version

NUM_STEPS = 20
BUNDLE_EVERY = 5


def test_a_swap_to_a_delta_adds_its_clicks_once(make_world, make_fused, make_delta):
    bundle = make_fused()
    index = ItemIndex.build(bundle.vectors_ND, IndexPlan())
    base = serving_version(bundle, index, 1, 41)
    more = RecentClicks(*(column[:2] for column in bundle.clicks))
    deltas = [
        delta_version(base, make_delta(bundle, n, new_ids=["new"], clicks=more), n + 1)
        for n in (1, 2)
    ]
    world = make_world([base, *deltas])

    for item in ("i3", "new", "i5"):
        world.click("u", item)
        world.batch(1)
        world.swap()

    assert base.fusion.maker.memory.num_added == 22
    report = world.verify()
    assert report.violations == []
    assert report.model_versions == [version.name for version in (base, *deltas)]
    assert report.states == 1


class Publisher:
    """A trainer's stream learner and releases, which learn random clicks and announce."""

    def __init__(self, system):
        settings = TrainerSettings.model_validate(
            {
                "learning": {"dim": 16},
                "dataset": {"user_clicks_per_hour": 10**6},
                "gate": {
                    **{"min_clicks": 0, "margin": 100.0, "max_extensions": 0},
                    **{"min_coverage_ratio": 0, "max_popularity_ratio": 100.0},
                },
                "fusion": {"min_examples": 10**6},  # without a ranker scores are cosines
            }
        )
        learner = new_learner(settings.learning, seed=0)
        fusion = FusionLearner(settings.fusion, temperature=learner.temperature)
        self.stream = StreamLearner(learner, fusion, settings)
        self.rng = np.random.default_rng(0)
        self.time_ms = 0
        self.sent = []
        topic = system.settings.topics.models

        def send(message):
            announce(system.producer, topic, message, timeout_seconds=10)
            self.sent.append(message)

        self.releases = Releases(Store(system.settings.store.url), send, settings)

    def learn(self, items):
        for item in items:
            self.time_ms += 1_000
            self.stream.add(f"u{self.rng.integers(20)}", None, f"i{item}", self.time_ms)
        self.stream.step(self.time_ms)

    def publish(self, *, bundle):
        now_ms = 1_790_000_000_000 + len(self.sent)
        if bundle:
            assert self.releases.release(self.stream, trained_through={}, now_ms=now_ms).accepted
        else:
            assert self.releases.deltas.release(self.stream, trained_through={}, now_ms=now_ms)
        return self.sent[-1]


@pytest.mark.kafka
def test_deltas_of_a_trainer_are_served_and_each_list_is_of_the_one_it_names(
    system, start_load, wait_until
):
    publisher = Publisher(system)
    publisher.learn([*range(200), *range(200)])
    publisher.publish(bundle=True)
    worker = system.start_worker()
    wait_until(lambda: worker.value("assigned_partitions") == 2, 30, "it serves")
    load = start_load(system, seed=1, num_items=200)
    for n in range(1, NUM_STEPS):
        answered = worker.value("clicks_total")
        publisher.learn([*publisher.rng.integers(200, size=100), 200 + n, 0])
        sent = publisher.publish(bundle=n % BUNDLE_EVERY == 0)
        named = {"name": "default", "version": sent.version, "encoder": sent.encoder_version}
        wait_until(lambda named=named: worker.value("model_info", **named), 20, f"{n} serves")
        wait_until(lambda a=answered: worker.value("clicks_total") > a, 20, "clicks go on")
    num_sent = load.stop()
    wait_until(lambda: worker.value("clicks_total") == num_sent, 20, "every click is answered")
    worker.stop()

    assert worker.value("model_loads_total", outcome="loaded", reason="") == NUM_STEPS
    report = system.verify()
    assert report.violations == []
    assert report.states == report.sessions > 0
    deltas = [name for name in report.model_versions if bundle_of(name) != name]
    assert len(deltas) >= NUM_STEPS - NUM_STEPS // BUNDLE_EVERY - 1
    assert system.check_scores() > 100
