"""Shapes: N items, D dimensions, M changed rows."""

from itertools import pairwise

import msgspec
import numpy as np
import pytest
import torch

from model.bundle import BundleError, load
from model.delta import join, load_delta
from model.store import Store
from trainer import deltas
from trainer.comparison import Comparison
from trainer.deltas import LEAST_MOVE, clearly_worse, moved_rows
from trainer.fusion_learner import FusionLearner
from trainer.releases import Releases
from trainer.settings import FusionSettings, TrainerSettings
from trainer.start import comparable
from trainer.state import Position


class Desk:
    """A stream that learns, the releases of it, and what was announced."""

    def __init__(self, stream, clicks, tmp_path, **overrides) -> None:
        self.stream = stream
        self.clicks = iter(clicks)
        self.sent = []
        self.store = Store(str(tmp_path))
        settings = TrainerSettings.model_validate({"gate": {"min_clicks": 0}} | overrides)
        self.releases = Releases(self.store, self.sent.append, settings)
        self.now_ms = 1_700_000_000_000

    def learn(self, num=100, new=()):
        for _ in range(num):
            self.stream.add(*next(self.clicks))
        for item in new:
            self.stream.add("new-user", None, item, 10**9)
        self.stream.step(10**6)

    def bundle(self):
        self.now_ms += 1000
        return self.releases.release(self.stream, trained_through={}, now_ms=self.now_ms)

    def delta(self):
        self.now_ms += 1000
        return self.releases.deltas.release(self.stream, trained_through={0: 9}, now_ms=self.now_ms)

    def loaded_bundle(self):
        found = next(sent for sent in reversed(self.sent) if sent.kind == "bundle")
        return load(found.uri, found.manifest_sha256, max_bytes=10**8)

    def loaded(self, sent):
        bundle = self.loaded_bundle()
        return load_delta(sent.uri, bundle, max_bytes=10**8, manifest_sha256=sent.manifest_sha256)


@pytest.fixture
def make_desk(make_stream, cyclic_clicks, tmp_path):
    def make(*, max_clicks=10**6, **overrides):
        stream = make_stream(user_clicks_per_hour=10**6)
        stream.fusion = FusionLearner(FusionSettings(max_clicks=max_clicks), temperature=12.0)
        desk = Desk(stream, cyclic_clicks(2000), tmp_path, **overrides)
        desk.learn(400)
        desk.bundle()
        return desk

    return make


@pytest.fixture
def desk(make_desk):
    return make_desk()


def test_a_delta_brings_a_bundle_to_what_the_stream_has_learnt(desk):
    desk.learn(new=["x", "y"])

    sent = desk.delta()
    joined = join(desk.loaded_bundle(), desk.loaded(sent))

    items, bundle = desk.stream.learner.items, desk.sent[0]
    assert (sent.kind, sent.parent, sent.version) == (
        *("delta", bundle.version, bundle.version + "+0001"),
    )
    assert (sent.encoder_version, sent.trained_through) == (bundle.encoder_version, {0: 9})
    assert list(joined.catalogue.ids) == list(items.ids)
    assert list(joined.catalogue.ids[-2:]) == ["x", "y"]
    now_ND = items.unit_vectors().numpy()
    assert np.einsum("nd,nd->n", joined.vectors_ND, now_ND).min() >= 1 - LEAST_MOVE
    np.testing.assert_array_equal(joined.vectors_ND[-2:], now_ND[-2:])
    memory = desk.stream.fusion.memory.columns()
    for shipped, held in zip(joined.clicks, memory, strict=True):
        np.testing.assert_array_equal(shipped, held)
    assert len(joined.clicks.rows_E) == 502
    assert sent.metrics["clicks"] == 102
    assert sent.metrics["changed_rows"] > 0


def test_each_delta_begins_with_the_clicks_of_the_one_before(desk):
    made = []
    for _ in range(3):
        desk.learn()
        made.append(desk.loaded(desk.delta()))

    assert [delta.manifest.version[-5:] for delta in made] == ["+0001", "+0002", "+0003"]
    for earlier, later in pairwise(made):
        num = len(earlier.clicks.rows_E)
        assert len(later.clicks.rows_E) == num + 100
        for before, after in zip(earlier.clicks, later.clicks, strict=True):
            np.testing.assert_array_equal(after[:num], before)


def test_a_new_bundle_starts_anew(desk):
    desk.learn()
    desk.delta()
    desk.bundle()

    assert desk.delta() is None
    desk.learn()
    sent = desk.delta()

    assert sent.version == desk.sent[2].version + "+0001"
    assert sent.metrics["clicks"] == 100


def test_nothing_is_sent_without_a_bundle_or_without_a_new_click(desk):
    assert desk.delta() is None
    desk.learn()
    assert desk.delta() is not None
    assert desk.delta() is None


def test_nothing_is_sent_after_another_party_restored_a_version(desk):
    desk.learn()
    found = msgspec.structs.replace(desk.sent[0], version="20991231T000000000Z-00000000")

    desk.releases.follow(desk.stream, found, desk.loaded_bundle())

    assert desk.delta() is None


def restarted(desk, standing):
    """Go on with other releases, as a trainer that continues from a checkpoint."""
    frozen = comparable(desk.stream, desk.loaded_bundle())
    settings = TrainerSettings.model_validate({"gate": {"min_clicks": 0}})
    desk.releases = Releases(desk.store, desk.sent.append, settings)
    desk.releases.serve(desk.stream, desk.sent[0].version, frozen)
    position = Position(extensions=3, serving=desk.sent[0].version, deltas=standing)
    desk.releases.rejoin(desk.stream, position)


def test_a_restarted_trainer_goes_on_where_its_checkpoint_stands(desk):
    desk.learn()
    before = desk.loaded(desk.delta())

    restarted(desk, desk.releases.deltas.standing)
    assert desk.delta() is None
    desk.learn()
    after = desk.loaded(desk.delta())

    assert desk.releases.extensions == 3
    assert after.manifest.version.endswith("+0002")
    np.testing.assert_array_equal(after.clicks.rows_E[:100], before.clicks.rows_E)
    assert len(after.clicks.rows_E) == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"number": 0},  # a delta was made after the checkpoint
        {"bundle": "20200101T000000000Z-00000000"},
        {"number": 9999},
    ],
)
def test_a_restarted_trainer_makes_no_delta_where_workers_may_have_other_clicks(desk, changes):
    desk.learn()
    desk.delta()
    standing = msgspec.structs.replace(desk.releases.deltas.standing, **changes)

    restarted(desk, standing)
    desk.learn()

    assert desk.releases.deltas.standing is None
    assert desk.delta() is None
    restarted(desk, None)
    assert desk.delta() is None


def test_the_rows_that_moved_furthest_go_first_and_no_more_than_allowed(make_desk):
    desk = make_desk(max_delta_rows=2)
    weights_ND = desk.stream.learner.items.weights_ND
    weights_ND[7] *= -1
    weights_ND[11] = torch.roll(weights_ND[11], 1) + weights_ND[11]
    desk.learn(1)

    delta = desk.loaded(desk.delta())

    assert delta.rows_M.tolist() == [7, 11]


def test_moved_rows_are_those_that_turned_enough():
    base_ND = torch.eye(4)
    angles = torch.tensor([0.0, 0.03, 0.06, 1.0])
    now_ND = torch.cos(angles)[:, None] * base_ND + torch.sin(angles)[:, None] * base_ND.roll(1, 0)

    assert moved_rows(now_ND, base_ND, 10).tolist() == [3, 2]
    assert moved_rows(now_ND, base_ND, 1).tolist() == [3]
    assert moved_rows(now_ND, base_ND, 0).tolist() == []
    now_ND[1] = float("nan")
    assert moved_rows(now_ND, base_ND, 10).tolist() == [1, 3, 2]


def test_while_a_candidate_stands_refused_only_new_items_and_clicks_go_out(desk, make_comparison):
    desk.learn()
    desk.stream.comparison = make_comparison(-0.2)
    assert desk.bundle().verdict == "refused"

    desk.learn(new=["x"])
    held = desk.delta()
    desk.stream.comparison = make_comparison(0.1)
    assert desk.bundle().accepted
    desk.learn()
    freed = desk.delta()

    assert (held.metrics["changed_rows"], held.metrics["new_items"]) == (0, 1)
    assert held.metrics["clicks"] == 201
    assert freed.metrics["changed_rows"] > 0


def test_rows_that_rank_clearly_worse_than_the_serving_ones_stay_at_home(desk, make_comparison):
    desk.learn()
    desk.stream.comparison = make_comparison(-0.04, error=0.01)
    assert desk.delta().metrics["changed_rows"] == 0

    desk.learn()
    desk.stream.comparison = make_comparison(-0.02, error=0.01)
    assert desk.delta().metrics["changed_rows"] > 0


@pytest.mark.parametrize(
    ("change", "error", "worse"),
    [(-0.031, 0.01, True), (-0.029, 0.01, False), (-0.3, 0.2, False), (0.3, 0.01, False)],
)
def test_three_standard_errors_are_clear(make_comparison, change, error, worse):
    assert clearly_worse(make_comparison(change, error=error)) is worse
    assert not clearly_worse(Comparison())


@pytest.mark.parametrize(("value", "reason"), [(float("nan"), "non_finite"), (0.0, "zero_row")])
@pytest.mark.parametrize("row", [3, -1])
def test_values_that_must_not_serve_are_not_sent_and_the_next_delta_may_be(
    desk, value, reason, row
):
    desk.learn(new=["x"])
    weights_ND = desk.stream.learner.items.weights_ND
    kept_D = weights_ND[row].clone()
    weights_ND[row] = value

    with pytest.raises(BundleError) as refused:
        desk.delta()
    weights_ND[row] = kept_D
    sent = desk.delta()

    assert refused.value.reason == reason
    assert sent.version.endswith("+0001")
    assert len(desk.sent) == 2


def test_only_the_last_deltas_of_a_bundle_are_kept(desk, monkeypatch):
    monkeypatch.setattr(deltas, "KEPT_DELTAS", 2)
    for _ in range(4):
        desk.learn()
        desk.delta()

    stored = desk.store.list("default", complete="manifest.json")
    assert stored == [desk.sent[0].version, *(sent.version for sent in desk.sent[3:])]


def test_a_memory_that_has_lost_clicks_since_the_bundle_makes_no_delta_before_the_next(make_desk):
    desk = make_desk(max_clicks=150)
    desk.learn()
    assert desk.delta() is not None

    desk.learn()
    assert desk.delta() is None
    desk.bundle()
    desk.learn()
    assert desk.delta() is not None
