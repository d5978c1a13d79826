"""`nextclick topics` and `nextclick dlq` against a real broker."""

import json

import pytest
from typer.testing import CliRunner

from cli.__main__ import app
from stream.clients import producer
from stream.settings import KafkaSettings
from stream.topics import TopicMismatchError

pytestmark = pytest.mark.kafka
TOPICS = ("clicks", "recommendations", "sessions", "models", "dead_letters")


@pytest.fixture
def prefix(topic_names, monkeypatch) -> str:
    made = topic_names()
    for topic in TOPICS:
        monkeypatch.setenv(f"NEXTCLICK_TOPICS__{topic.upper()}", made + topic)
    return made


@pytest.fixture
def run(kafka):
    def command(*arguments: str):
        servers = ["--bootstrap-servers", kafka.bootstrap_servers]
        return CliRunner().invoke(app, [*arguments, *servers])

    return command


def test_ensure_creates_the_topics_and_describe_shows_them(run, prefix):
    first = json.loads(run("topics", "ensure", "--json").stdout)
    second = json.loads(run("topics", "ensure", "--json").stdout)
    shown = json.loads(run("topics", "describe", "--json").stdout)

    assert first["created"] == [prefix + topic for topic in TOPICS]
    assert second["created"] == []
    assert shown["topics"] == first["topics"]
    assert [state["partitions"] for state in shown["topics"]] == [4, 4, 4, 1, 4]


def test_the_table_names_every_topic(run, prefix):
    result = run("topics", "ensure")

    assert result.exit_code == 0
    assert all(prefix + topic in result.stdout for topic in TOPICS)


def test_describe_fails_while_topics_are_missing(run, prefix):
    result = run("topics", "describe")

    assert result.exit_code == 1
    assert isinstance(result.exception, TopicMismatchError)


def test_dead_letters_are_shown(run, prefix, kafka):
    run("topics", "ensure")
    sender = producer(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers), client_id="p")
    headers = [("__nextclick.errors.reason", b"malformed"), ("__nextclick.errors.offset", b"7")]
    sender.send(prefix + "dead_letters", b"\xff{", None, headers, 0)
    sender.flush(timeout=10)
    sender.close()

    (letter,) = json.loads(run("dlq", "show", "--json").stdout)

    assert (letter["reason"], letter["offset"], letter["value"]) == ("malformed", 7, "\\xff{")
    assert "malformed" in run("dlq", "show").stdout
