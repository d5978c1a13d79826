"""`nextclick verify`: what it looks at, what it says, and its exit code."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from cli.__main__ import main
from cli.settings import Settings
from stream import clients, topics
from stream.local_kafka import LocalKafka


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path):
    """Run the command in this process, with a state directory of its own."""
    for name in list(os.environ):
        if name.upper().startswith("NEXTCLICK_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nextclick", "verify", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return command


def test_without_anything_to_look_at_it_says_where_it_looked(run, tmp_path: Path):
    code, out, err = run()

    assert (code, out) == (1, "")
    assert "nothing to verify" in err
    assert str(tmp_path / "state" / "nextclick" / "demo") in err
    assert not (tmp_path / "state").exists()


@pytest.fixture
def config(kafka: LocalKafka, topic_names: Callable[[], str], tmp_path: Path) -> Path:
    """Settings with names of their own; the topics do not exist yet."""
    prefix = topic_names()
    lines = [f'kafka.bootstrap_servers = "{kafka.bootstrap_servers}"', f'kafka.app = "{prefix}app"']
    for topic in ("clicks", "recommendations", "sessions", "models", "dead_letters"):
        lines.append(f'topics.{topic} = "{prefix}{topic}"')
    lines.append("topics.partitions = 1")
    file = tmp_path / "nextclick.toml"
    file.write_text("\n".join(lines))
    return file


def load(config: Path) -> Settings:
    from cli.settings import load_settings

    return load_settings(config)


def publish_one_click(settings: Settings) -> None:
    producer = clients.producer(settings.kafka, client_id="test")
    click = {"user_id": "u", "item_id": "i", "timestamp": int(time.time() * 1_000)}
    value = json.dumps(click).encode()
    producer.send(settings.topics.clicks, value=value, key=b"u").get(timeout=10)
    producer.close(timeout=5)


def commit(settings: Settings, offset: int) -> None:
    consumer = clients.click_consumer(settings.kafka, client_id="test")
    partition = TopicPartition(settings.topics.clicks, 0)
    consumer.assign([partition])
    consumer.commit({partition: OffsetAndMetadata(offset, "", -1)}, timeout_ms=10_000)
    consumer.close()


@pytest.mark.kafka
def test_missing_topics_are_named(run, config: Path):
    code, _, err = run("--config", str(config))

    assert code == 1
    assert f"there is no topic {load(config).topics.clicks}" in err


@pytest.mark.kafka
def test_a_click_that_waits_for_its_outcome_is_no_violation(run, config: Path):
    settings = load(config)
    topics.ensure(settings.kafka, settings.topics)
    publish_one_click(settings)

    code, out, err = run("--config", str(config), "--json")

    assert code == 0, err
    assert json.loads(out)["pending"] == 1
    assert settings.topics.clicks in err


@pytest.mark.kafka
def test_a_committed_click_without_outcome_is_a_violation(run, config: Path):
    settings = load(config)
    topics.ensure(settings.kafka, settings.topics)
    publish_one_click(settings)
    commit(settings, 1)

    code, out, _ = run("--config", str(config))

    assert code == 1
    assert "clicks/0/0: lost, it has no outcome" in out
