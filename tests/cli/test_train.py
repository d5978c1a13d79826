from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.__main__ import app
from cli.settings import Settings
from model.bundle import load
from stream import announcements, clients, topics
from stream.local_kafka import LocalKafka
from stream.messages import ModelAnnouncement


def write_log(path: Path, num: int = 600) -> Path:
    """Write clicks of users who walk round a ring of thirty items."""
    rng = np.random.default_rng(0)
    at = rng.integers(30, size=60)
    lines = ["user_id,item_id,timestamp"]
    for number in range(num):
        user = int(rng.integers(60))
        at[user] = (at[user] + 1) % 30
        lines.append(f"u{user},i{at[user]},{1_760_000_000_000 + 1000 * number}")
    path.write_text("\n".join(lines))
    return path


def train(log: Path, tmp_path: Path, *flags: str) -> Any:
    return CliRunner().invoke(
        app, ["train", str(log), "--out", str(tmp_path / "models"), "--json", *flags]
    )


def test_train_prints_the_version_and_how_good_it_is(tmp_path: Path) -> None:
    result = train(write_log(tmp_path / "clicks.csv"), tmp_path, "--dim", "16", "--epochs", "2")

    report = json.loads(result.stdout)
    bundle = load(report["uri"], report["manifest_sha256"], max_bytes=10_000_000)
    assert result.exit_code == 0
    assert bundle.manifest.version == report["version"]
    assert (report["items"], report["dim"]) == (30, 16)
    assert report["clicks"] > 600
    assert {"seconds", "clicks_per_second", "recall@20", "mrr@20"} <= report.keys()


def test_train_says_in_one_line_what_is_wrong_with_a_log(tmp_path: Path) -> None:
    result = train(tmp_path / "missing.csv", tmp_path)

    assert result.exit_code == 1
    assert result.stderr.startswith("nextclick: ")
    assert "no such file" in result.stderr
    assert "Traceback" not in result.stderr


def test_train_refuses_a_log_without_a_second_click(tmp_path: Path) -> None:
    log = tmp_path / "clicks.csv"
    log.write_text("user_id,item_id,timestamp\na,x,1760000000000\n")

    result = train(log, tmp_path)

    assert result.exit_code == 1
    assert "no session of two clicks" in result.stderr


CONFIG = """
[kafka]
bootstrap_servers = "{servers}"
app = "{prefix}app"
[topics]
clicks = "{prefix}clicks"
models = "{prefix}models"
recommendations = "{prefix}recs"
sessions = "{prefix}sessions"
dead_letters = "{prefix}dlq"
partitions = 2
[store]
url = "{folder}/models"
[metrics]
trainer_port = 0
[trainer]
checkpoint_dir = "{folder}/checkpoints"
publish_seconds = 1.0
first_publish_clicks = 100
[trainer.learning]
dim = 16
[trainer.dataset]
batch_seconds = 0.5
user_clicks_per_hour = 10000
[trainer.gate]
min_clicks = 10
max_extensions = 0
margin = 1.0
min_coverage_ratio = 0.0
max_popularity_ratio = 100.0
"""


class Deployment:
    """Topics, a configuration file and a trainer process."""

    def __init__(self, kafka: LocalKafka, prefix: str, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.settings = Settings(
            kafka={"bootstrap_servers": kafka.bootstrap_servers, "app": prefix + "app"},
            topics={"clicks": prefix + "clicks", "models": prefix + "models",
                    "recommendations": prefix + "recs", "sessions": prefix + "sessions",
                    "dead_letters": prefix + "dlq", "partitions": 2},
        )  # fmt: skip
        topics.ensure(self.settings.kafka, self.settings.topics)
        self.config = tmp_path / "nextclick.toml"
        self.config.write_text(
            CONFIG.format(servers=kafka.bootstrap_servers, prefix=prefix, folder=tmp_path)
        )
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "cli", "trainer", "--config", str(self.config)]
        with (self.tmp_path / "trainer.log").open("ab") as log:
            self.processes.append(subprocess.Popen(command, stderr=log, stdout=log))
        return self.processes[-1]

    def click(self, first: int, num: int) -> None:
        producer = clients.producer(self.settings.kafka, client_id="test")
        now_ms = int(time.time() * 1000)
        for number in range(first, first + num):
            user = f"u{number % 20}"
            item = f"i{(number // 20 + number % 20) % 30}"
            value = {"user_id": user, "item_id": item, "timestamp": now_ms}
            body = json.dumps(value).encode()
            producer.send(self.settings.topics.clicks, value=body, key=user.encode())
        producer.flush(timeout=10)
        producer.close(timeout=5)

    def latest(self) -> ModelAnnouncement | None:
        reader = clients.reader(self.settings.kafka, client_id="test-reader")
        try:
            return announcements.latest(reader, self.settings.topics.models, "default")
        finally:
            reader.close()

    def log(self) -> str:
        return (self.tmp_path / "trainer.log").read_text()[-4000:]

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait(10)


@pytest.fixture
def deployment(
    kafka: LocalKafka, topic_names: Callable[[], str], tmp_path: Path
) -> Iterator[Deployment]:
    made = Deployment(kafka, topic_names(), tmp_path)
    yield made
    made.close()


@pytest.mark.kafka
def test_the_trainer_publishes_stops_cleanly_and_goes_on_where_it_was(
    deployment: Deployment, wait_until: Callable[..., None]
) -> None:
    deployment.click(0, 400)
    process = deployment.start()
    wait_until(lambda: deployment.latest() is not None, 60, "a version is announced")
    first = deployment.latest()

    process.send_signal(signal.SIGTERM)
    code = process.wait(10)
    deployment.click(400, 400)
    again = deployment.start()
    wait_until(lambda: deployment.latest() != first, 60, "a later version is announced")
    again.send_signal(signal.SIGTERM)

    second = deployment.latest()
    assert (code, again.wait(10)) == (0, 0), deployment.log()
    assert first is not None
    assert second is not None
    assert second.version > first.version
    assert second.parent == first.version
    assert sum(second.trained_through.values()) > sum(first.trained_through.values())
    bundle = load(second.uri, second.manifest_sha256, max_bytes=10_000_000)
    assert len(bundle.catalogue) == 30


def test_a_wrong_setting_ends_the_trainer_with_78_before_any_kafka_call(tmp_path: Path) -> None:
    config = tmp_path / "nextclick.toml"
    config.write_text("[trainer]\npublish_seconds = -1\n")
    command = [sys.executable, "-m", "cli", "trainer", "--config", str(config)]

    result = subprocess.run(
        command, capture_output=True, timeout=60, check=False, env=dict(os.environ)
    )

    assert result.returncode == 78
    assert b"trainer.publish_seconds = -1" in result.stderr
