import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from kafka.errors import KafkaTimeoutError
from typer.testing import CliRunner

from cli import replay
from stream import clients
from stream.messages import decode_click

T0 = 1_500_000_000_000


class Acknowledged:
    is_done = True
    exception: Exception | None = None

    def succeeded(self) -> bool:
        return self.exception is None


class Rejected(Acknowledged):
    exception = KafkaTimeoutError("too late")


class MemoryProducer:
    """Acknowledges at once; `on_send` may interfere."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, bytes]] = []
        self.on_send: Callable[[int], Acknowledged] = lambda _number: Acknowledged()
        self.closed = False

    def send(self, topic: str, value: bytes, key: bytes) -> Acknowledged:
        self.sent.append((topic, value, key))
        return self.on_send(len(self.sent))

    def flush(self, timeout: float) -> None: ...

    def close(self, timeout: float) -> None:
        self.closed = True


@pytest.fixture
def producer(monkeypatch: pytest.MonkeyPatch) -> MemoryProducer:
    memory = MemoryProducer()
    monkeypatch.setattr(clients, "producer", lambda _settings, client_id: memory)
    return memory


@pytest.fixture
def log(tmp_path: Path) -> str:
    rows = [f"u{n % 3},s{n % 3},i{n},{T0 + 10 * n}" for n in range(10)]
    file = tmp_path / "log.csv"
    file.write_text("\n".join(["user_id,session_id,item_id,timestamp", *rows]))
    return str(file)


def run(*arguments: str) -> Any:
    app = typer.Typer()
    replay.register(app)
    return CliRunner().invoke(app, list(arguments))


def test_a_log_is_published_in_order_and_shifted_to_now(producer: MemoryProducer, log: str) -> None:
    result = run(log, "--speed", "10x", "--json")

    sent = [decode_click(value) for _, value, _ in producer.sent]
    assert result.exit_code == 0
    assert json.loads(result.stdout) | {"seconds": 0} == {
        "published": 10, "failed": 0, "clicks": 10, "seconds": 0, "stopped": False,
    }  # fmt: skip
    assert [click.item_id for click in sent] == [f"i{n}" for n in range(10)]
    assert [key for _, _, key in producer.sent] == [f"u{n % 3}".encode() for n in range(10)]
    assert sent[0].session_id == "s0"
    assert [click.timestamp - sent[0].timestamp for click in sent] == list(range(10))
    assert sent[0].timestamp > T0 + 86_400_000
    assert producer.closed


def test_limit_and_topic_are_obeyed(producer: MemoryProducer, log: str) -> None:
    result = run(log, "--speed", "max", "--limit", "4", "--topic", "other")

    assert "Published 4 of 4 clicks" in result.stdout
    assert {topic for topic, _, _ in producer.sent} == {"other"}


def test_an_interrupt_stops_cleanly_and_says_how_far_it_came(
    producer: MemoryProducer, log: str
) -> None:
    before = signal.getsignal(signal.SIGINT)

    def interrupt(number: int) -> Acknowledged:
        if number == 3:
            signal.raise_signal(signal.SIGINT)
        return Acknowledged()

    producer.on_send = interrupt
    result = run(log, "--speed", "max")

    assert result.exit_code == 0
    assert "Published 3 of 10 clicks" in result.stdout
    assert "stopped on request" in result.stdout
    assert producer.closed
    assert signal.getsignal(signal.SIGINT) is before


def test_clicks_that_are_not_acknowledged_end_the_replay_with_a_count(
    producer: MemoryProducer, log: str
) -> None:
    producer.on_send = lambda number: Rejected() if number == 4 else Acknowledged()

    result = run(log, "--speed", "max", "--json")

    assert result.exit_code == 1
    assert json.loads(result.stdout)["failed"] == 1
    assert "1 of 5 clicks were not acknowledged" in result.stderr
    assert producer.closed


@pytest.mark.parametrize("speed", ["fast", "0x", "-1x", "nan", "infx"])
def test_a_wrong_speed_is_a_usage_error_that_names_what_is_accepted(log: str, speed: str) -> None:
    result = run(log, f"--speed={speed}")

    assert result.exit_code == 2
    assert "accepted are real" in " ".join(result.stderr.split())


def test_a_wrong_file_is_one_clear_line(producer: MemoryProducer, tmp_path: Path) -> None:
    result = run(str(tmp_path / "none.csv"))

    assert result.exit_code == 1
    assert "no such file or folder" in result.stderr
    assert not producer.sent
