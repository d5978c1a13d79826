import numpy as np
import pytest

from model.bundle import load
from model.golden import check_golden
from model.store import Store
from stream.click_log import ClickLog
from trainer import checkpoint, state
from trainer.bootstrap import choose_dim, choose_epochs
from trainer.deltas import Standing
from trainer.first import Order, train_first
from trainer.settings import TrainerSettings

DEFAULTS = TrainerSettings()


def ring_log(clicks: list[tuple[str, str | None, str, int]]) -> ClickLog:
    users, _, items, times = (list(column) for column in zip(*clicks, strict=True))
    return ClickLog(users, None, items, np.asarray(times, np.int64))


def train(clicks, tmp_path, *, settings=DEFAULTS, **order):
    seen = []
    first = train_first(
        ring_log(clicks),
        Store(str(tmp_path / "models")),
        settings,
        Order(**{"dim": 16, "epochs": 8, **order}),
        now_ms=1_700_000_000_000,
        report=seen.append,
    )
    return first, seen


def test_a_log_with_structure_gives_a_version_that_has_found_it(cyclic_clicks, tmp_path):
    first, seen = train(cyclic_clicks(6000, users=300), tmp_path)

    bundle = load(first.published.uri, first.published.manifest_sha256, max_bytes=100_000_000)
    check_golden(bundle)
    assert first.holdout.num > 100
    assert first.holdout.mrr > 0.6
    assert bundle.manifest.metrics["mrr_at_20"] == pytest.approx(first.holdout.mrr)
    assert len(bundle.catalogue) == first.num_items == 40
    assert seen[-1].clicks == seen[-1].total_clicks
    assert [advance.epoch for advance in seen] == sorted(advance.epoch for advance in seen)


def test_equal_seeds_give_equal_versions(cyclic_clicks, tmp_path):
    clicks = cyclic_clicks(1500)

    first, _ = train(clicks, tmp_path / "a", epochs=1)
    second, _ = train(clicks, tmp_path / "b", epochs=1)

    assert first.published.manifest.version == second.published.manifest.version


def test_items_that_appear_only_in_the_latest_sessions_are_in_the_version(cyclic_clicks, tmp_path):
    clicks = cyclic_clicks(1500)
    end = clicks[-1][3]
    late = [("late", None, "item-0", end + 1), ("late", None, "brand-new", end + 2)]

    first, _ = train(clicks + late, tmp_path, epochs=1)

    bundle = load(first.published.uri, first.published.manifest_sha256, max_bytes=100_000_000)
    assert bundle.catalogue.row("brand-new") == 40
    assert bundle.popularity_N[40] == pytest.approx(1.0, abs=0.01)


def test_the_checkpoint_continues_with_the_same_weights(cyclic_clicks, tmp_path):
    folder = tmp_path / "checkpoints"

    first, _ = train(cyclic_clicks(1500), tmp_path, epochs=1, checkpoint_dir=folder)
    stream, position = state.restore(checkpoint.read_latest(folder), TrainerSettings())

    bundle = load(first.published.uri, first.published.manifest_sha256, max_bytes=100_000_000)
    num_clicks = stream.fusion.memory.num_added
    assert num_clicks == len(bundle.clicks.rows_E) == 1500
    deltas = Standing(bundle.manifest.version, num_clicks, num_clicks)
    assert position == state.Position(deltas=deltas)
    assert list(stream.learner.items.ids) == list(bundle.catalogue.ids)
    assert np.array_equal(stream.learner.items.unit_vectors().numpy(), bundle.vectors_ND)
    assert stream.learner.progress.clicks == first.clicks_learnt
    assert len(stream.replay) > 0


def test_a_log_without_any_second_click_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no session of two clicks"):
        train([("a", None, "x", 0), ("b", None, "y", 1)], tmp_path)


def test_small_logs_get_more_passes_and_narrower_vectors():
    assert choose_epochs(10_000) == 10
    assert choose_epochs(10_000_000) == 3
    assert [choose_dim(10_000), choose_dim(100_000)] == [64, 128]


@pytest.mark.parametrize(("channels", "ranked"), [(("rnn",), False), (("rnn", "knn"), True)])
def test_a_version_names_its_channels_and_one_by_vector_alone_has_no_ranker(
    cyclic_clicks, tmp_path, channels, ranked
):
    settings = TrainerSettings.model_validate({"fusion": {"channels": channels}})

    first, _ = train(cyclic_clicks(4000, users=200), tmp_path, settings=settings, epochs=1)

    bundle = load(first.published.uri, first.published.manifest_sha256, max_bytes=100_000_000)
    assert bundle.manifest.channels == channels
    assert (bundle.ranker is not None) == ranked == bool(bundle.manifest.features)
