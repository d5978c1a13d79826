"""`nextclick demo` as a user runs it: real Kafka, real processes, and nothing left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.__main__ import main
from stream.kafka_runtime import KafkaRuntime

KEYS = {
    *("clicks", "recommendations", "dead_letters", "skipped", "repeated", "model_versions"),
    *("latency_ms", "cpu_us_per_click", "next_click_hit_rate", "violations", "seconds"),
    "bootstrap_servers",
}


def processes_in(directory: Path) -> list[str]:
    """Processes whose command line or working directory lies in `directory`."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            place = os.readlink(process / "cwd")
        except OSError:
            continue  # no process, or it has ended meanwhile
        if str(directory) in command or place.startswith(str(directory)):
            found.append(command)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo").resolve()


@pytest.fixture(scope="module")
def nextclick(place: Path, kafka_runtime: KafkaRuntime) -> Any:
    """Run a command with a state directory of its own, started outside the checkout."""
    work = place / "work"
    work.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.upper().startswith("NEXTCLICK_")}
    environment["XDG_STATE_HOME"] = str(place / "state")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=170,
            cwd=work,
            env=environment,
        )

    return run


@pytest.fixture(scope="module")
def demo(nextclick: Any) -> subprocess.CompletedProcess[str]:
    options = ("--seconds", "8", "--rate", "100", "--history", "2000", "--json")
    done: subprocess.CompletedProcess[str] = nextclick("demo", *options)
    return done


@pytest.mark.kafka
@pytest.mark.timeout(180)
def test_the_last_line_is_the_summary_and_every_click_is_answered(demo):
    assert demo.returncode == 0, demo.stderr
    summary = json.loads(demo.stdout.splitlines()[-1])

    assert set(summary) == KEYS
    assert summary["clicks"] >= 500
    rest = summary["dead_letters"] + sum(summary["skipped"].values())
    assert summary["clicks"] == summary["recommendations"] + rest
    assert summary["violations"] == []
    assert summary["model_versions"]
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"]
    assert summary["cpu_us_per_click"] > 0
    rates = summary["next_click_hit_rate"]
    assert 0 < rates["popularity"] < rates["best_reachable"]
    assert 0 < rates["last_third"] < 1


@pytest.mark.kafka
@pytest.mark.timeout(180)
def test_nothing_is_left_but_the_demos_own_directory(demo, place: Path):
    assert processes_in(place) == []
    assert [path.name for path in (place / "work").iterdir()] == []
    assert [path.name for path in (place / "state" / "nextclick").iterdir()] == ["demo"]


@pytest.mark.kafka
@pytest.mark.timeout(180)
def test_verify_looks_at_what_the_demo_left(demo, nextclick, place: Path):
    summary = json.loads(demo.stdout.splitlines()[-1])

    done = nextclick("verify", "--json")

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert "the last demo" in done.stderr
    assert report["violations"] == []
    assert report["clicks"] == summary["clicks"]
    assert report["model_versions"] == summary["model_versions"]
    assert report["states"] == report["sessions"] > 0
    assert processes_in(place) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--clicks", "nowhere.csv"), "nowhere.csv: no such file"),
        (("--config", "nowhere.toml"), "nowhere.toml: there is no such file"),
        (("--bootstrap-servers", "nonsense"), "kafka.bootstrap_servers = nonsense"),
    ],
)
def test_a_mistake_is_told_before_anything_begins(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path, arguments: Any, text: str
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "argv", ["nextclick", "demo", *arguments])

    with pytest.raises(SystemExit) as left:
        main()

    assert left.value.code in {1, 78}
    assert text in capsys.readouterr().err
    assert not (tmp_path / "state").exists()
