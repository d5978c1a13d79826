"""`nextclick worker` that cannot start: the right exit code and a message that helps."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli.__main__ import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Write a configuration file; nothing of the environment counts."""
    for name in list(os.environ):
        if name.upper().startswith("NEXTCLICK_"):
            monkeypatch.delenv(name)

    def write(text):
        file = tmp_path / "nextclick.toml"
        file.write_text(text)
        return str(file)

    return write


@pytest.fixture
def worker(config):
    """Run the command with a configuration; returns the finished process."""

    def run(text, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "cli", "worker", "--config", config(text), *arguments],
            cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    return run


@pytest.mark.matrix("F47")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[worker.batch]\nmax_clicks = 0", "worker.batch.max_clicks = 0: must be at least 1"),
        ("[worker.ranking]\nexclude = 'all'", "worker.ranking.exclude = all: must be one of"),
        ("[worker]\nmodle = 'x'", "worker.modle: unknown setting; did you mean model?"),
        ("[kafka]\nheartbeat_interval_ms = 9000", "heartbeat_interval_ms = 9000: must be less"),
    ],
)
def test_a_wrong_setting_exits_78_and_says_what_is_allowed(
    config, capsys, monkeypatch, text, message
):
    monkeypatch.setattr(sys, "argv", ["nextclick", "worker", "--config", config(text)])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 78
    assert message in capsys.readouterr().err


def test_a_wrong_address_exits_75_and_names_the_setting(worker):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"

    done = worker("", "--bootstrap-servers", address)

    assert done.returncode == 75
    assert f"kafka.bootstrap_servers = {address}: no broker can be reached" in done.stderr


@pytest.mark.kafka
def test_missing_topics_exit_78_and_say_how_to_create_them(worker, kafka, topic_names):
    prefix = topic_names()

    done = worker(
        f"[topics]\nclicks = '{prefix}clicks'", "--bootstrap-servers", kafka.bootstrap_servers
    )

    assert done.returncode == 78
    assert "nextclick topics ensure" in done.stderr
    assert f"{prefix}clicks" in done.stderr
