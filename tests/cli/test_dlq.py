"""`nextclick dlq replay`: what it asks, does, says and returns, against a real broker."""

import json
import os
import signal
import time
from typing import get_args

import pytest
from kafka import TopicPartition
from typer.testing import CliRunner

from cli import dlq
from cli.__main__ import app
from stream import clients, dead_letter_replay
from stream.dead_letters import PREFIX
from stream.replay_selection import Refusal
from stream.settings import KafkaSettings

pytestmark = pytest.mark.kafka
TOPICS = ("clicks", "recommendations", "sessions", "models", "dead_letters")


class Dlq:
    """Topics of their own, and the command."""

    def __init__(self, kafka, prefix):
        self.settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, app=prefix + "app")
        self.prefix = prefix
        self("topics", "ensure")

    def __call__(self, *arguments, answer=None):
        servers = ["--bootstrap-servers", self.settings.bootstrap_servers]
        return CliRunner().invoke(app, [*arguments, *servers], input=answer)

    def replay(self, *arguments, answer=None):
        return self("dlq", "replay", *arguments, answer=answer)

    def bury(self, num, reason="malformed", **more):
        sender = clients.producer(self.settings, client_id="p")
        for number in range(num):
            said = {"reason": reason, "partition": 0, "offset": number} | more
            headers = [(PREFIX + name, str(value).encode()) for name, value in said.items()]
            sender.send(self.prefix + "dead_letters", b"{", b"u", headers, partition=0)
        sender.flush(timeout=10)
        sender.close(timeout=5)

    def num_clicks(self):
        reader = clients.reader(self.settings, client_id="r")
        parts = [TopicPartition(self.prefix + "clicks", number) for number in range(4)]
        ends = reader.end_offsets(parts, timeout_ms=10_000)
        reader.close()
        return sum(ends.values())


@pytest.fixture
def command(kafka, topic_names, monkeypatch):
    prefix = topic_names()
    for topic in TOPICS:
        monkeypatch.setenv(f"NEXTCLICK_TOPICS__{topic.upper()}", prefix + topic)
    monkeypatch.setenv("NEXTCLICK_KAFKA__APP", prefix + "app")
    return Dlq(kafka, prefix)


def test_it_asks_with_the_number_and_a_no_changes_nothing(command):
    command.bury(3)

    refused = command.replay(answer="n\n")
    unanswered = command.replay(answer="")

    assert (refused.exit_code, unanswered.exit_code) == (1, 1)
    assert f"Replay 3 letters to {command.prefix}clicks?" in refused.stderr
    assert command.num_clicks() == 0


def test_a_yes_replays_and_a_second_run_has_nothing_to_do(command):
    command.bury(3)

    first = command.replay(answer="y\n")
    second = command.replay("--yes")

    assert first.exit_code == 0, first.stderr
    assert "replayed" in first.stdout
    assert "malformed" in first.stdout
    assert (second.exit_code, second.stdout) == (0, "No dead letter waits for a replay.\n")
    assert command.num_clicks() == 3


def test_json_is_all_that_is_printed(command):
    command.bury(3)
    command.bury(2, reason="oversize", **{"value.bytes": 99_999})
    command.bury(1, attempt=3)
    command.bury(1, reason="id")

    chosen = ("--reason", "malformed", "--reason", "oversize", "--json")
    tried = json.loads(command.replay(*chosen, "--dry-run").stdout)
    done = json.loads(command.replay(*chosen, "--yes").stdout)

    rest = {"refused": {"cut": 2, "at_limit": 1}, "other_reasons": {"id": 1}, "stopped": False}
    assert tried == {"would_be_replayed": {"malformed": 3}} | rest
    assert done == {"replayed": {"malformed": 3}} | rest
    assert command.num_clicks() == 3


def test_refused_letters_are_explained(command):
    command.bury(1, reason="oversize", **{"value.bytes": 99_999})
    command.bury(1, attempt=3)

    result = command.replay()

    assert result.exit_code == 0
    assert "only the first KiB was kept (oversize): the producer must send them" in result.stdout
    assert "replayed 3 times already: they stay in the topic" in result.stdout
    assert command.num_clicks() == 0


def test_every_refusal_has_its_words():
    assert set(dlq._REFUSED) == set(get_args(Refusal))


def test_a_limit_and_an_unknown_reason(command):
    command.bury(5)

    assert "other reason: malformed" in command.replay("--reason", "malfromed", "--yes").stdout
    assert json.loads(command.replay("--limit", "2", "--yes", "--json").stdout)["replayed"] == {
        "malformed": 2
    }
    assert command.num_clicks() == 2
    assert command.replay("--limit", "0").exit_code == 2


def test_a_run_that_fails_says_how_far_it_came(command, monkeypatch):
    command.bury(3)

    def fail(*arguments):
        raise dead_letter_replay.ReplayError("3 letters were not acknowledged")

    monkeypatch.setattr(dead_letter_replay.Replay, "_replay_slice", fail)
    result = command.replay("--yes", "--json")

    assert result.exit_code == 1
    assert json.loads(result.stdout)["replayed"] == {}
    assert result.stderr == "nextclick: 3 letters were not acknowledged\n"


def test_a_signal_ends_it_after_the_slice_in_hand(command, monkeypatch):
    command.bury(250)
    replay_slice = dead_letter_replay.Replay._replay_slice

    def interrupted(self, tp, records, position):
        if records:
            os.kill(os.getpid(), signal.SIGTERM)
        replay_slice(self, tp, records, position)

    monkeypatch.setattr(dead_letter_replay.Replay, "_replay_slice", interrupted)
    result = command.replay("--yes")
    monkeypatch.undo()

    assert "Stopped on request; run it again to go on." in result.stdout
    assert result.exit_code == 0
    assert 0 < command.num_clicks() <= 100


def test_the_attempts_of_a_letter_are_shown(command):
    command.bury(1, attempt=2)

    (letter,) = json.loads(command("dlq", "show", "--json").stdout)

    assert (letter["attempt"], letter["cut"]) == (2, False)
    assert "attempt" in command("dlq", "show").stdout


def test_letters_of_a_week_ago_are_left(command, monkeypatch):
    command.bury(1)
    now = time.time()
    monkeypatch.setattr(dlq.time, "time", lambda: now + 7.1 * 86_400)

    assert json.loads(command.replay("--yes", "--json").stdout)["refused"] == {"too_old": 1}
    assert command.num_clicks() == 0
