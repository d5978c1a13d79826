"""The settings of a demo run, and the file that its processes read."""

import os
from pathlib import Path

import pytest

from cli.demo_home import DemoBusyError, DemoHome
from cli.demo_settings import Place, demo_settings, write_settings
from cli.settings import load_settings


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch):
    for name in list(os.environ):
        if name.upper().startswith("NEXTCLICK_"):
            monkeypatch.delenv(name)


@pytest.fixture
def home(tmp_path: Path) -> DemoHome:
    root = tmp_path / "demo"
    root.mkdir()
    return DemoHome(root)


OWN = Place("127.0.0.1:1234", borrowed=False)


def test_everything_lies_in_the_demos_directory(home: DemoHome):
    settings = demo_settings(None, home, OWN, seconds=90)

    assert settings.store.url == str(home.models)
    assert settings.trainer.checkpoint_dir == home.checkpoints
    assert settings.topics.clicks == "clicks"


def test_a_borrowed_broker_gets_names_of_its_own(home: DemoHome):
    place = Place("127.0.0.1:1234", borrowed=True, partitions=2)
    settings = demo_settings(None, home, place, seconds=90)
    other = demo_settings(None, home, place, seconds=90)

    topics = settings.topics
    names = {topics.clicks, topics.recommendations, topics.sessions, topics.models}
    names |= {topics.dead_letters, settings.kafka.app}
    assert all(name.startswith("nextclick-demo-") for name in names)
    assert len(names) == 6
    assert settings.kafka.app != other.kafka.app
    assert topics.partitions == 2


def test_what_the_user_sets_wins_over_the_demos_pace(home: DemoHome, tmp_path: Path):
    config = tmp_path / "mine.toml"
    config.write_text("trainer.publish_seconds = 77\nworker.ranking.k = 5\nstore.url = 'else'\n")

    settings = demo_settings(config, home, OWN, seconds=90)

    assert settings.trainer.publish_seconds == 77
    assert settings.worker.ranking.k == 5
    assert settings.store.url == str(home.models)


@pytest.mark.parametrize(("seconds", "expected"), [(None, 12), (90, 12), (30, 5), (2, 2)])
def test_several_versions_fit_into_a_short_run(
    home: DemoHome, seconds: float | None, expected: float
):
    assert demo_settings(None, home, OWN, seconds=seconds).trainer.publish_seconds == expected


def test_the_file_gives_the_same_settings_again(home: DemoHome, tmp_path: Path):
    config = tmp_path / "mine.toml"
    config.write_text(
        'kafka.consumer = {security_protocol = "SSL", ssl_check_hostname = false}\n'
        'worker.model = "größe"\ntrainer.start_from = "latest"\n'
    )
    settings = demo_settings(config, home, OWN, seconds=None)

    write_settings(settings, home.config)

    assert load_settings(home.config) == settings
    assert home.config.stat().st_mode & 0o077 == 0


def test_a_directory_serves_one_demo_at_a_time(home: DemoHome):
    with home.held(), pytest.raises(DemoBusyError), home.held():
        pass


def test_wiping_removes_only_what_a_demo_left(home: DemoHome):
    (home.root / "notes.txt").write_text("mine")
    home.models.mkdir()
    home.config.write_text("")

    home.wipe()

    assert [path.name for path in home.root.iterdir()] == ["notes.txt"]
