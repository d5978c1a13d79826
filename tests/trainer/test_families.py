"""Every encoder family trains, is stored, loads, and goes on learning."""

from typing import get_args

import numpy as np
import pytest

from model.bundle import load
from model.encoders.families import FAMILIES
from model.golden import check_golden
from model.store import Store
from stream.click_log import ClickLog
from trainer import checkpoint, state
from trainer.first import Order, train_first
from trainer.settings import LearningSettings, TrainerSettings


def test_the_setting_names_every_family():
    named = get_args(LearningSettings.model_fields["family"].annotation)

    assert sorted(named) == sorted(FAMILIES)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_first_version_of_every_family_finds_the_structure_and_learns_on(
    family, cyclic_clicks, tmp_path
):
    users, _, items, times = zip(*cyclic_clicks(1_500, users=100), strict=True)
    log = ClickLog(list(users), None, list(items), np.asarray(times, np.int64))
    settings = TrainerSettings.model_validate({"learning": {"family": family}})
    order = Order(dim=16, epochs=8, checkpoint_dir=tmp_path / "checkpoints")

    first = train_first(
        *(log, Store(str(tmp_path / "models")), settings, order),
        now_ms=1_700_000_000_000,
        report=lambda advance: None,
    )
    stream, _ = state.restore(checkpoint.read_latest(tmp_path / "checkpoints"), settings)
    for click in cyclic_clicks(300):
        stream.add(*click)
    step = stream.step(2_000_000_000_000)

    bundle = load(first.published.uri, first.published.manifest_sha256, max_bytes=10_000_000)
    check_golden(bundle)
    assert bundle.manifest.encoder.family == family
    assert first.holdout.mrr > 0.6
    assert step.num_targets > 100
    assert step.refused is None
