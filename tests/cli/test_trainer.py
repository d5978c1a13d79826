"""What a trainer starts from when a version is announced already."""

import pytest
from prometheus_client import CollectorRegistry

from cli import trainer
from cli.settings import Settings
from stream.announcements import ModelsTopic
from stream.exit_codes import UNAVAILABLE, exit_code
from stream.messages import Gate, ModelAnnouncement
from stream.monitor import Health
from trainer.metrics import TrainerMetrics
from trainer.trainer import CONDITIONS, Surroundings


@pytest.fixture
def announced(monkeypatch, tmp_path):
    found = ModelAnnouncement(
        name="default", version="v1", kind="bundle", uri=str(tmp_path / "away"),
        manifest_sha256="0" * 64, bytes=1, created_at=1, encoder_version="e",
        trained_through={}, metrics={}, gate=Gate(verdict="accepted"),
    )  # fmt: skip
    monkeypatch.setattr(ModelsTopic, "latest", lambda _self, _name: found)


def test_a_store_that_is_away_stops_it_before_it_publishes_unjudged(announced):
    metrics = TrainerMetrics(CollectorRegistry())
    around = Surroundings(metrics, Health(CONDITIONS), lambda: 0.0, lambda: 0)

    with pytest.raises(ConnectionError, match="version v1 serves, but missing") as raised:
        trainer.construct_trainer(Settings(), around)

    assert exit_code(raised.value) == UNAVAILABLE
