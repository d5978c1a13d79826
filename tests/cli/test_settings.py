"""The composed settings: precedence, sources, and mistakes in words."""

import os
from pathlib import Path

import pytest

from cli.settings import Settings, load_settings, load_with_sources, values
from cli.settings_errors import SettingsError


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch):
    for name in list(os.environ):
        if name.upper().startswith("NEXTCLICK_"):
            monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "nextclick.toml"
    file.write_text(
        '[kafka]\napp = "from-file"\nlinger_ms = 7\n[kafka.consumer]\nfetch_min_bytes = 3\n'
        "[worker.batch]\nmax_clicks = 100\n"
    )
    return file


def mistakes(config: Path | None = None, overrides: dict[str, object] | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(config, overrides)
    return str(caught.value).splitlines()


def test_without_anything_all_values_are_defaults():
    settings, sources = load_with_sources()

    assert settings == Settings()
    assert sources == {}


def test_a_flag_beats_the_environment_which_beats_the_file(config, monkeypatch):
    monkeypatch.setenv("NEXTCLICK_KAFKA__APP", "from-env")
    monkeypatch.setenv("NEXTCLICK_WORKER__BATCH__MAX_CLICKS", "200")

    settings, sources = load_with_sources(
        config, {"kafka.app": "from-flag", "kafka.compression": None}
    )

    assert settings.kafka.app == "from-flag"
    assert settings.worker.batch.max_clicks == 200
    assert settings.kafka.linger_ms == 7
    assert settings.kafka.compression == "lz4"
    assert sources == {
        "kafka.app": "flag",
        "worker.batch.max_clicks": "NEXTCLICK_WORKER__BATCH__MAX_CLICKS",
        "kafka.linger_ms": str(config),
        "kafka.consumer.fetch_min_bytes": str(config),
    }


def test_pass_through_maps_are_merged_and_converted(config, monkeypatch):
    monkeypatch.setenv("NEXTCLICK_KAFKA__CONSUMER__RETRY_BACKOFF_MS", "50")

    assert load_settings(config).kafka.consumer == {"fetch_min_bytes": 3, "retry_backoff_ms": 50}


WRONG = [
    (
        "NEXTCLICK_WORKER__BATCH__MAX_CLICKS", "0",
        "worker.batch.max_clicks = 0: must be at least 1 "
        "(from NEXTCLICK_WORKER__BATCH__MAX_CLICKS)",
    ),
    (
        "NEXTCLICK_METRICS__WORKER_PORT", "70000",
        "metrics.worker_port = 70000: must be at most 65535 (from NEXTCLICK_METRICS__WORKER_PORT)",
    ),
    (
        "NEXTCLICK_KAFKA__LINGER_MS", "soon",
        "kafka.linger_ms = soon: must be a whole number (from NEXTCLICK_KAFKA__LINGER_MS)",
    ),
    (
        "NEXTCLICK_KAFKA__COMPRESSION", "zip",
        "kafka.compression = zip: must be one of 'none', 'lz4', 'zstd', 'snappy' or 'gzip' "
        "(from NEXTCLICK_KAFKA__COMPRESSION)",
    ),
    (
        "NEXTCLICK_KAFKA__APPP", "x",
        "kafka.appp: unknown setting; did you mean app? (from NEXTCLICK_KAFKA__APPP)",
    ),
    (
        "NEXTCLICK_STORE__COLOUR", "x",
        "store.colour: unknown setting; known here: url (from NEXTCLICK_STORE__COLOUR)",
    ),
    (
        "NEXTCLICK_KAFKA__CONSUMER__ISOLATION_LEVEL", "read_uncommitted",
        "kafka.consumer.isolation_level: set by nextclick itself, it cannot be passed through "
        "(from NEXTCLICK_KAFKA__CONSUMER__ISOLATION_LEVEL)",
    ),
    (
        "NEXTCLICK_KAFKA__HEARTBEAT_INTERVAL_MS", "5000",
        "kafka.heartbeat_interval_ms = 5000: must be less than a third of session_timeout_ms = "
        "10000 (from NEXTCLICK_KAFKA__HEARTBEAT_INTERVAL_MS)",
    ),
    (
        "NEXTCLICK_KAFKAA__APP", "x",
        "NEXTCLICK_KAFKAA__APP: unknown setting; NEXTCLICK_… names one of the sections kafka, "
        "topics, processing, store, metrics, worker, trainer",
    ),
    (
        "NEXTCLICK_KAFKA", "abc",
        "NEXTCLICK_KAFKA = abc: must be a JSON object; better set a single value, as "
        "NEXTCLICK_KAFKA__<NAME>",
    ),
    (
        "NEXTCLICK_PROCESSING__GUARANTEE", "at_most_once",
        "processing.guarantee = at_most_once: must be one of 'at_least_once' or 'exactly_once' "
        "(from NEXTCLICK_PROCESSING__GUARANTEE)",
    ),
    (
        "NEXTCLICK_PROCESSING__STATIC_MEMBERS", "true",
        "processing.static_members = true: needs a slot, which survives a restart "
        "(from NEXTCLICK_PROCESSING__STATIC_MEMBERS)",
    ),
    (
        "NEXTCLICK_WORKER__BATCH", "3",
        "worker.batch = 3: must be a table of settings (from NEXTCLICK_WORKER__BATCH)",
    ),
]  # fmt: skip


@pytest.mark.matrix("F47")
@pytest.mark.parametrize(("name", "value", "text"), WRONG, ids=[case[0] for case in WRONG])
def test_a_wrong_setting_is_named_with_its_value_and_what_is_allowed(
    name, value, text, monkeypatch
):
    monkeypatch.setenv(name, value)

    assert mistakes() == [text]


def test_a_wrong_address_shows_the_pattern_and_what_it_means():
    (said,) = mistakes(overrides={"kafka.bootstrap_servers": "localhost"})

    assert said.startswith("kafka.bootstrap_servers = localhost: must match ")
    assert "host:port" in said
    assert said.endswith("(from flag)")


@pytest.mark.matrix("F47")
def test_every_mistake_of_a_file_is_named_at_once(tmp_path):
    file = tmp_path / "wrong.toml"
    file.write_text("[kafka]\nlinger_ms = -1\n[shop]\nx = 1\n[topics]\npartitions = 0\n")

    assert mistakes(file) == [
        f"kafka.linger_ms = -1: must be at least 0 (from {file})",
        f"topics.partitions = 0: must be at least 1 (from {file})",
        "shop: unknown setting; known here: kafka, topics, processing, store, metrics, worker, "
        "trainer",
    ]


def test_a_file_that_is_missing_or_not_toml_is_named(tmp_path):
    (tmp_path / "bad.toml").write_text("[kafka\n")

    assert mistakes(tmp_path / "none.toml") == [
        f"--config {tmp_path / 'none.toml'}: there is no such file"
    ]
    assert mistakes(tmp_path / "bad.toml")[0].startswith(f"{tmp_path / 'bad.toml'}: not TOML: ")


def test_a_secret_is_never_shown(monkeypatch):
    monkeypatch.setenv("NEXTCLICK_KAFKA__CONSUMER__SASL_PLAIN_PASSWORD", "hunter2")
    monkeypatch.setenv("NEXTCLICK_KAFKA__CONSUMER__SASL_PASSWORD", "hunter2")  # no such key

    assert "hunter2" not in "\n".join(mistakes())


def test_every_setting_has_a_description_and_a_default():
    def fields(section):
        for name, field in type(section).model_fields.items():
            value = getattr(section, name)
            if hasattr(type(value), "model_fields"):
                yield from fields(value)
            else:
                yield f"{type(section).__name__}.{name}", field

    assert [name for name, field in fields(Settings()) if not field.description] == []
    assert len(dict(values(Settings()))) > 40


def test_the_trainer_follows_what_the_worker_is_told(tmp_path):
    config = tmp_path / "nextclick.toml"
    config.write_text(
        'worker.model = "news"\nworker.sessions.idle_gap_minutes = 5\n'
        "worker.sessions.ttl_days = 2\n"
    )

    settings, sources = load_with_sources(config)

    assert settings.trainer.model == "news"
    assert settings.trainer.dataset.idle_gap_minutes == 5
    assert settings.trainer.dataset.ttl_days == 2
    assert sources["trainer.model"] == "worker.model"


def test_roles_that_would_read_clicks_differently_are_refused(tmp_path):
    config = tmp_path / "nextclick.toml"
    config.write_text("trainer.dataset.ttl_days = 2\n")

    with pytest.raises(SettingsError) as raised:
        load_settings(config)

    assert str(raised.value) == (
        "trainer.dataset.ttl_days = 2.0: must be that of worker.sessions.ttl_days = 30.0; leave it "
        f"out, then it follows (from {config})"
    )
