from dataclasses import replace
from itertools import pairwise

import pytest

from stream.click_feed import Reading
from stream.messages import ClickEvent
from tests.trainer.scripted import Bench
from trainer import checkpoint, state
from trainer.stream_learner import StreamLearner
from trainer.trainer import LearningFailedError


@pytest.fixture
def bench(cyclic_clicks, tmp_path):
    return Bench(cyclic_clicks(1000), tmp_path)


def test_an_empty_model_publishes_its_first_version_after_enough_clicks(bench):
    bench.run()

    assert len(bench.sent) == 1
    assert sum(bench.sent[0].trained_through.values()) >= 300
    assert bench.value("trainer_models_published_total", kind="bundle") == 1
    assert bench.value("trainer_gate_verdicts_total", verdict="accepted", reason="first") == 1
    assert bench.value("clicks_total") == 1000
    assert bench.value("model_info", **model_labels(bench)) == 1


def model_labels(bench) -> dict[str, str]:
    sent = bench.sent[-1]
    return {"name": sent.name, "version": sent.version, "encoder": sent.encoder_version}


def test_later_versions_come_by_clicks_or_by_time(cyclic_clicks, tmp_path):
    by_clicks = Bench(cyclic_clicks(2000), tmp_path / "a", publish_clicks=400)
    by_time = Bench(cyclic_clicks(2000), tmp_path / "b", publish_seconds=10.0)

    by_clicks.run()
    while not by_time.feed.empty:
        by_time.trainer.turn()
        by_time.now += 3.0

    assert len(by_clicks.sent) >= 3
    assert len(by_time.sent) >= 3


def kinds(bench) -> list[str]:
    return [sent.kind for sent in bench.sent]


def test_deltas_come_by_time_between_two_bundles(cyclic_clicks, tmp_path):
    bench = Bench(cyclic_clicks(2000), tmp_path, delta_seconds=10.0, publish_seconds=45.0)

    while not bench.feed.empty:
        bench.trainer.turn()
        bench.now += 6.0

    first = [n for n, kind in enumerate(kinds(bench)) if kind == "bundle"]
    assert len(first) >= 3
    assert all(kind == "delta" for n, kind in enumerate(kinds(bench)) if n not in first)
    assert all(3 <= later - earlier <= 5 for earlier, later in pairwise(first))
    published = {kind: kinds(bench).count(kind) for kind in ("bundle", "delta")}
    for kind, num in published.items():
        assert bench.value("trainer_models_published_total", kind=kind) == num
    assert bench.value("model_info", **model_labels(bench)) == 1
    assert bench.value("trainer_delta_rows") > 0
    versions = [sent.version for sent in bench.sent]
    assert versions == sorted(versions)


def test_a_delta_has_what_was_clicked_until_it_is_made(cyclic_clicks, tmp_path):
    slow = {"batch_targets": 5_000, "batch_seconds": 60.0, "user_clicks_per_hour": 1000}
    bench = Bench(cyclic_clicks(2000), tmp_path, delta_seconds=10.0, dataset=slow)
    for _ in range(5):
        bench.trainer.turn()
    bench.now = 61.0
    bench.trainer.turn()
    assert kinds(bench) == ["bundle"]

    bench.now += 10.0
    bench.trainer.turn()

    assert kinds(bench) == ["bundle", "delta"]
    assert bench.sent[-1].trained_through == bench.feed.next_offsets
    assert bench.sent[-1].metrics["clicks"] == 100


def test_a_delta_whose_values_must_not_serve_is_counted_and_the_trainer_goes_on(bench):
    while not bench.sent:
        bench.trainer.turn()
    while bench.stream.fusion.memory.num_added < 600:
        bench.trainer.turn()
    bench.stream.learner.items.weights_ND[5] = 0.0

    bench.trainer._release_delta()
    bench.run()

    assert kinds(bench) == ["bundle"]
    assert bench.value("trainer_deltas_refused_total", reason="zero_row") == 1


def test_a_restarted_trainer_makes_deltas_after_a_bundle_of_its_own_which_comes_soon(
    cyclic_clicks, tmp_path
):
    clicks = cyclic_clicks(1000)
    first = Bench(clicks[:600], tmp_path)
    first.run()

    second = Bench(clicks, tmp_path, serving=first.sent[-1].version)
    for _ in range(4):
        second.trainer.turn()
    assert kinds(second) == []
    second.now += second.settings.delta_seconds
    second.trainer.turn()
    assert kinds(second) == ["bundle"]
    second.now += second.settings.delta_seconds
    second.feed.readings += second.feed.readings[:100]
    second.trainer.turn()
    second.now += second.settings.delta_seconds
    second.trainer.turn()

    assert kinds(second) == ["bundle", "delta"]


def test_nothing_is_published_while_nothing_is_learnt(bench):
    bench.run()
    published = len(bench.sent)

    bench.now += 10_000
    bench.trainer.turn()
    bench.now += 10_000
    bench.trainer.turn()

    assert len(bench.sent) <= published + 1


def test_stopping_saves_then_shows_the_offsets_and_closes_the_feed(bench):
    bench.run()

    content = checkpoint.read_latest(bench.settings.checkpoint_dir)
    _, position = state.restore(content, bench.settings)
    assert position.offsets == {0: 1000}
    assert position.deltas == bench.releases.deltas.standing
    assert position.deltas.bundle == bench.sent[0].version
    assert bench.feed.commits[-1] == {0: 1000}
    assert bench.feed.closed
    assert bench.health.missing == ["reading"]


def test_a_restarted_trainer_reads_on_where_its_checkpoint_stands(cyclic_clicks, tmp_path):
    clicks = cyclic_clicks(1000)
    Bench(clicks[:600], tmp_path).run()

    second = Bench(clicks, tmp_path)

    assert second.feed.next_offsets == {0: 600}
    assert len(second.stream.learner.items) == 40


def test_clicks_that_cannot_be_used_are_counted_by_reason(bench):
    bench.feed.readings[10] = Reading(None, 0, "malformed")

    bench.run()

    assert bench.value("clicks_skipped_total", reason="malformed") == 1


def test_a_click_without_consent_leaves_no_trace(bench):
    click = ClickEvent(user_id="private", item_id="rare", timestamp=1, consent=False)
    bench.feed.readings[10] = Reading(click, bench.feed.readings[10].time_ms, "")

    bench.run()

    assert bench.value("clicks_skipped_total", reason="no_consent") == 1
    assert bench.stream.learner.items.row("rare") == -1
    assert "private" not in bench.stream.sessions.state().sessions


def test_an_undecided_candidate_is_judged_again_when_the_time_has_come(cyclic_clicks, tmp_path):
    clicks = cyclic_clicks(1000)
    bench = Bench(clicks, tmp_path, publish_clicks=100, gate={"min_clicks": 10_000})

    bench.run()
    undecided = {"verdict": "undecided", "reason": "few_clicks"}

    assert len(bench.sent) == 1
    assert bench.value("trainer_gate_verdicts_total", **undecided) == 1
    bench.now += 10_000
    bench.trainer.turn()
    assert bench.value("trainer_gate_verdicts_total", **undecided) == 2


def test_three_dropped_batches_lead_back_to_the_checkpoint(bench):
    bench.trainer._save()
    for _ in range(3):
        bench.trainer.turn()
    before = bench.stream.learner.items.weights_ND.clone()
    bench.trainer._save()
    saved_at = bench.feed.next_offsets[0]
    bench.stream.learner.items.weights_ND.fill_(float("nan"))

    while bench.trainer._stream is bench.stream:
        bench.trainer.turn()

    learner = bench.trainer._stream.learner
    assert bench.feed.next_offsets == {0: saved_at}
    assert learner.items.weights_ND.equal(before)
    assert bench.value("trainer_batches_skipped_total", reason="loss") == 3
    bench.run()
    assert learner.items.weights_ND.isfinite().all()


def test_weights_that_failed_are_not_saved(bench):
    bench.trainer.turn()
    bench.trainer._save()
    weights = bench.stream.learner.items.weights_ND
    weights.fill_(float("nan"))

    bench.now += 10_000
    bench.trainer.turn()
    bench.trainer.run(lambda: True)

    saved = checkpoint.read_latest(bench.settings.checkpoint_dir)
    assert bench.value("trainer_batches_skipped_total", reason="loss") == 1
    assert saved.tensors["learner"]["items"].isfinite().all()


def test_without_a_checkpoint_to_go_back_to_it_gives_up(bench):
    bench.trainer.turn()
    bench.stream.learner.items.weights_ND.fill_(float("nan"))

    with pytest.raises(LearningFailedError):
        bench.run()


def test_after_a_drift_a_bundle_comes_soon(cyclic_clicks, tmp_path, monkeypatch):
    bench = Bench(cyclic_clicks(1000), tmp_path, publish_seconds=900, delta_seconds=60)
    bench.trainer.turn()
    learnt = StreamLearner.step
    monkeypatch.setattr(
        StreamLearner, "step", lambda self, time_ms: replace(learnt(self, time_ms), drifted=True)
    )
    for bench.now in (0.0, 1.0, 2.0, 3.0, 61.0, 122.0):
        bench.trainer.turn()

    assert bench.value("trainer_drifts_total") > 1
    assert [sent.kind for sent in bench.sent][:2] == ["bundle", "bundle"]


def test_a_version_that_is_tried_serves_when_its_time_is_over_and_no_other_comes_before(
    cyclic_clicks, tmp_path
):
    bench = Bench(
        cyclic_clicks(3000),
        tmp_path,
        publish_clicks=200,
        delta_seconds=1e6,
        gate={"min_clicks": 0, "margin": 10, "canary_share": 0.1, "canary_seconds": 50},
    )
    bench.releases._latest = lambda kind: next(
        (sent for sent in reversed(bench.sent) if sent.kind == kind), None
    )
    for _ in range(12):
        bench.trainer.turn()
    tried = [sent.kind for sent in bench.sent]
    bench.now = 51.0
    bench.trainer.turn()

    assert tried == ["bundle", "canary"]
    first, trial, promoted = bench.sent[:3]
    assert (promoted.kind, promoted.version) == ("bundle", trial.version)
    assert bench.value("trainer_gate_verdicts_total", verdict="accepted", reason="tried") == 1
    assert bench.value("trainer_models_published_total", kind="bundle") == 2
    assert model_labels(bench)["version"] != first.version
