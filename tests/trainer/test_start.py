import pytest
import torch
from structlog import get_logger
from structlog.testing import capture_logs

from model.bundle import load
from model.store import Store
from trainer import checkpoint, start, state
from trainer.releases import Releases
from trainer.settings import TrainerSettings
from trainer.start import begin, comparable


@pytest.fixture
def settings(tmp_path):
    return TrainerSettings.model_validate(
        {"checkpoint_dir": tmp_path / "checkpoints", "learning": {"dim": 32}}
    )


@pytest.fixture
def learnt(make_stream, cyclic_clicks):
    stream = make_stream()
    for click in cyclic_clicks(300):
        stream.add(*click)
    stream.step(1000)
    return stream


@pytest.fixture
def bundle(learnt, settings, tmp_path):
    sent = []
    releases = Releases(Store(str(tmp_path / "models")), sent.append, settings)
    releases.release(learnt, trained_through={}, now_ms=1_700_000_000_000)
    return load(sent[0].uri, sent[0].manifest_sha256, max_bytes=10_000_000)


def test_with_nothing_to_continue_from_the_model_is_empty(settings):
    stream, position = begin(settings, None)

    assert len(stream.learner.items) == 0
    assert stream.learner.encoder.dim == 32
    assert position == state.Position()


def test_without_a_checkpoint_it_continues_from_the_serving_version(settings, bundle):
    stream, position = begin(settings, bundle)

    learner = stream.learner
    assert position == state.Position()
    assert learner.encoder.config == bundle.manifest.encoder
    assert list(learner.items.ids) == list(bundle.catalogue.ids)
    assert torch.allclose(learner.items.unit_vectors(), torch.from_numpy(bundle.vectors_ND))
    assert all(parameter.requires_grad for parameter in learner.encoder.parameters())


def test_the_first_step_after_a_warm_start_keeps_vectors_near_where_they_were(
    settings, bundle, cyclic_clicks
):
    stream, _ = begin(settings, bundle)
    before_ND = stream.learner.items.unit_vectors()

    for click in cyclic_clicks(300):
        stream.add(*click)
    stream.step(2_000_000_000_000)

    cosine_N = (before_ND * stream.learner.items.unit_vectors()).sum(1)
    assert 0.8 < float(cosine_N.min()) < 1.0


def test_a_checkpoint_goes_before_the_serving_version(settings, bundle, learnt):
    learnt.add("u", None, "later", 5)
    checkpoint.write(settings.checkpoint_dir, state.capture(learnt, state.Position(offsets={1: 9})))

    stream, position = begin(settings, bundle)

    assert stream.learner.items.row("later") == 40
    assert position.offsets == {1: 9}


def test_a_version_whose_rows_mean_other_items_is_not_compared_with(settings, bundle, make_stream):
    other = make_stream()
    other.add("u", None, "something-else", 0)

    assert comparable(other, bundle) is None
    assert comparable(begin(settings, bundle)[0], bundle) is not None


@pytest.mark.parametrize("saved", [True, False])
def test_settings_that_a_begun_model_does_not_follow_are_named(
    settings, bundle, learnt, saved, monkeypatch
):
    monkeypatch.setattr(start, "log", get_logger())  # the module's own may be bound for good
    if saved:
        checkpoint.write(settings.checkpoint_dir, state.capture(learnt, state.Position()))
    wanted = settings.learning.model_copy(update={"family": "lstm", "dim": 16})

    with capture_logs() as logged:
        begin(settings.model_copy(update={"learning": wanted}), bundle)

    warned = [line for line in logged if line["log_level"] == "warning"]
    assert [(line["setting"], line["settings"], line["model"]) for line in warned] == [
        ("trainer.learning.family", "lstm", "gru")
    ]
