"""What a trainer starts from when a version is announced already."""

import pytest

from cli import trainer
from cli.settings import Settings
from stream import announcements, clients
from stream.exit_codes import UNAVAILABLE, exit_code
from stream.messages import Gate, ModelAnnouncement


class Closing:
    """A reader that is only closed."""

    def close(self):
        pass


@pytest.fixture
def announced(monkeypatch, tmp_path):
    found = ModelAnnouncement(
        name="default", version="v1", kind="bundle", uri=str(tmp_path / "away"),
        manifest_sha256="0" * 64, bytes=1, created_at=1, encoder_version="e",
        trained_through={}, metrics={}, gate=Gate(verdict="accepted"),
    )  # fmt: skip
    monkeypatch.setattr(clients, "reader", lambda _settings, client_id: Closing())
    monkeypatch.setattr(announcements, "latest", lambda _reader, _topic, _name: found)


def test_a_store_that_is_away_stops_it_before_it_publishes_unjudged(announced):
    with pytest.raises(ConnectionError, match="version v1 serves, but missing") as raised:
        trainer._serving_version(Settings(), None)

    assert exit_code(raised.value) == UNAVAILABLE
