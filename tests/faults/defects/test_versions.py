"""D13 and D14: brokers and client versions that no guard could make right are refused."""

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from kafka import KafkaProducer
from kafka.errors import KafkaConfigurationError

from stream import clients
from stream.settings import KafkaSettings, ProcessingSettings

ROOT = Path(__file__).parents[3]


@pytest.mark.matrix("D13")
@pytest.mark.parametrize(("speaks", "refused"), [((2, 6), True), ((2, 8), True), ((3, 0), False)])
def test_guard_d13_transactions_need_brokers_of_3_0(monkeypatch, speaks, refused):
    class Producer:
        DEFAULT_CONFIG = KafkaProducer.DEFAULT_CONFIG
        closed = False

        def __init__(self, **config):
            self.config = config | {"api_version": speaks}

        def close(self, timeout):
            Producer.closed = True

    monkeypatch.setattr(clients, "KafkaProducer", Producer)
    monkeypatch.setattr(clients, "_probe", lambda settings: None)
    settings = KafkaSettings(), ProcessingSettings()

    if refused:
        with pytest.raises(KafkaConfigurationError, match=r"3\.0"):
            clients.transactional_producer(*settings, client_id="w", slot="a")
    else:
        clients.transactional_producer(*settings, client_id="w", slot="a")

    assert Producer.closed is refused


@pytest.mark.matrix("D14")
def test_guard_d14_the_client_is_pinned_to_the_versions_that_were_examined():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = [line for line in project["dependencies"] if line.startswith("kafka-python")]

    assert pins == ["kafka-python>=3.0.12,<3.1"]
    assert (3, 0, 12) <= tuple(map(int, version("kafka-python").split("."))) < (3, 1)
