"""Fixtures for every test: one real broker a session, unique topics, bounded waits."""

import importlib
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch and faiss read it when they are loaded

import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator

import pytest

with warnings.catch_warnings():
    # kafka-python 3.0 reads its schemas by functions that Python 3.11 deprecated.
    warnings.filterwarnings("ignore", "(read|open)_text is deprecated", DeprecationWarning)
    importlib.import_module("kafka")

from stream.kafka_runtime import KafkaRuntime
from stream.local_kafka import KafkaUnavailableError, LocalKafka, ensure_runtime

POLL_SECONDS = 0.02

WaitUntil = Callable[..., None]


def pytest_configure(config: pytest.Config) -> None:
    """Allow for kafka-python 3.0: it forgets to close a socket whose connect was refused."""
    config.addinivalue_line(
        "filterwarnings",
        r"ignore:unclosed <socket\.socket .*laddr=\('0\.0\.0\.0', \d+\)>:ResourceWarning",
    )


@pytest.fixture(scope="session")
def kafka_runtime() -> KafkaRuntime:
    """The jars and the Java: without them skip on a laptop, but fail in CI."""
    try:
        return ensure_runtime()
    except KafkaUnavailableError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def kafka(
    kafka_runtime: KafkaRuntime, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalKafka]:
    """One real broker for the whole session; tests keep apart by their topic names."""
    with LocalKafka(tmp_path_factory.mktemp("kafka") / "data", runtime=kafka_runtime) as started:
        yield started


@pytest.fixture
def topic_names() -> Callable[[], str]:
    """Make a prefix for topics and groups that no other test has, new at each call."""
    return lambda: f"t{uuid.uuid4().hex[:10]}-"


@pytest.fixture
def wait_until() -> WaitUntil:
    """Wait until a condition holds; fail with the message when the seconds are over."""

    def wait(condition: Callable[[], object], seconds: float, message: str) -> None:
        deadline = time.monotonic() + seconds
        pause = threading.Event()
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"after {seconds:g} s: {message}")
            pause.wait(POLL_SECONDS)

    return wait
