"""The command: quick to start, clear when it fails, right exit codes."""

import json
import os
import socket
import subprocess
import sys
from importlib.metadata import version

import pytest

from cli.__main__ import main

HEAVY = ("torch", "faiss", "pyarrow", "kafka", "numpy")


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch):
    for name in list(os.environ):
        if name.upper().startswith("NEXTCLICK_"):
            monkeypatch.delenv(name)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command in this process: exit code, standard output, standard error."""

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nextclick", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return command


def test_help_loads_no_heavy_library():
    script = f"import sys, cli.__main__; print([m for m in {HEAVY} if m in sys.modules])"

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.strip() == "[]"


def test_help_names_every_group_and_each_group_shows_an_example(run):
    code, out, _ = run("--help")

    assert code == 0
    for group, command in (("topics", "ensure"), ("config", "show"), ("dlq", "show")):
        assert group in out
        assert "Example:" in run(group, command, "--help")[1]


def test_the_version_is_printed(run):
    assert run("--version")[:2] == (0, f"nextclick {version('nextclick')}\n")


def test_wrong_usage_exits_2(run):
    assert run("topics", "explode")[0] == 2
    assert run("dlq", "show", "--limit", "0")[0] == 2


def test_a_wrong_setting_exits_78_with_one_line_and_no_traceback(run, monkeypatch):
    monkeypatch.setenv("NEXTCLICK_WORKER__BATCH__MAX_CLICKS", "0")

    code, out, err = run("config", "check")

    assert (code, out) == (78, "")
    assert err == (
        "nextclick: worker.batch.max_clicks = 0: must be at least 1 "
        "(from NEXTCLICK_WORKER__BATCH__MAX_CLICKS)\n"
    )


def test_a_role_with_a_wrong_setting_exits_78_before_it_starts(run, monkeypatch):
    monkeypatch.setenv("NEXTCLICK_WORKER__BATHC__MAX_CLICKS", "1")

    code, _, err = run("worker")

    assert code == 78
    assert "worker.bathc: unknown setting; did you mean batch?" in err


def test_right_settings_pass_the_check(run):
    assert run("config", "check") == (0, "The settings are right.\n", "")


def test_every_value_is_shown_with_its_source_and_secrets_are_masked(run, monkeypatch):
    monkeypatch.setenv("NEXTCLICK_KAFKA__APP", "shop")
    monkeypatch.setenv("NEXTCLICK_KAFKA__PRODUCER__SASL_PLAIN_PASSWORD", "hunter2")

    code, out, _ = run("config", "show", "--json")
    report = json.loads(out)

    assert code == 0
    assert report["kafka.app"] == {"value": "shop", "source": "NEXTCLICK_KAFKA__APP"}
    assert report["kafka.linger_ms"] == {"value": 5, "source": "default"}
    assert report["kafka.producer"] == {
        "value": {"sasl_plain_password": "***"},
        "source": "NEXTCLICK_KAFKA__PRODUCER__SASL_PLAIN_PASSWORD",
    }
    assert "hunter2" not in run("config", "show")[1]


def test_a_short_command_without_a_broker_exits_1_and_names_the_address(run):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"

    code, _, err = run("topics", "describe", "--bootstrap-servers", address)

    assert code == 1
    assert err.startswith(f"nextclick: kafka.bootstrap_servers = {address}: no broker")
    assert len(err.splitlines()) == 1


def test_schemas_are_written_where_they_are_wanted(run, tmp_path):
    assert run("config", "schemas", "--out", str(tmp_path / "new"))[0] == 0

    assert "click_event.v1.json" in {file.name for file in (tmp_path / "new").iterdir()}
