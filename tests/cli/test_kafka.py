"""`nextclick kafka` as its user has it: each command is a process of its own."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stream.kafka_runtime import KafkaRuntime

Command = Callable[..., subprocess.CompletedProcess[str]]

PROGRAM = "from cli.kafka import app; app(prog_name='nextclick kafka')"


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    """Run a command over a private state directory; nothing runs any more afterwards."""
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "COLUMNS": "120"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    yield run
    run("down")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.kafka
@pytest.mark.usefixtures("kafka_runtime")
def test_up_leaves_a_broker_that_status_finds_and_down_stops(command: Command) -> None:
    servers = f"127.0.0.1:{(port := free_port())}"

    assert command("up", "--port", str(port)).stdout.strip() == servers
    found = json.loads(command("status", "--json").stdout)
    again = command("up", "--json")
    stopped = command("down")

    assert found["running"]
    assert found["bootstrap_servers"] == servers
    assert again.returncode == 0
    assert "already up" in again.stderr
    assert json.loads(again.stdout) == found
    assert stopped.stdout == "Kafka stopped\n"
    ended = command("status", "--json")
    assert ended.returncode == 1
    assert [node["alive"] for node in json.loads(ended.stdout)["nodes"]] == [False]


@pytest.mark.kafka
@pytest.mark.usefixtures("kafka_runtime")
def test_down_keeps_the_data_unless_it_is_told_to_wipe(command: Command, tmp_path: Path) -> None:
    data = tmp_path / "elsewhere"
    command("up", "--directory", str(data))

    command("down")
    assert data.exists()

    wiped = command("down", "--wipe")
    assert f"removed {data}" in wiped.stdout
    assert not data.exists()


def test_a_port_that_is_taken_is_refused(command: Command, kafka_runtime: KafkaRuntime) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answer = command("up", "--port", str(taken.getsockname()[1]))

    assert answer.returncode == 2
    assert "something else listens on port" in answer.stderr


def test_a_folder_with_other_files_is_refused(
    command: Command, kafka_runtime: KafkaRuntime, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")

    answer = command("up", "--directory", str(tmp_path))

    assert answer.returncode == 1
    assert "not empty" in answer.stderr


def test_a_kafka_home_without_jars_is_named_with_the_other_ways(
    command: Command, tmp_path: Path
) -> None:
    answer = command("up", "--kafka-home", str(tmp_path))

    assert answer.returncode == 1
    assert "KAFKA_HOME" in answer.stderr
    assert "--bootstrap-servers" in answer.stderr


def test_down_without_a_broker_says_so(command: Command) -> None:
    answer = command("down", "--wipe")

    assert answer.returncode == 0
    assert answer.stdout == "Kafka was not running\n"
