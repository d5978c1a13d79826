"""Logs of the roles: one JSON object a line, ours and the libraries'."""

import json
import logging

import pytest
import structlog

from cli.logs import configure_logs


@pytest.fixture
def lines(capsys):
    """The logged lines; puts everything back that `configure_logs` changes.

    Tests call it themselves: pytest adds handlers of its own between the fixtures and the test.
    """
    root, kafka = logging.getLogger(), logging.getLogger("kafka")
    before = root.handlers[:], root.level, kafka.level
    yield lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    kafka.setLevel(before[2])
    structlog.reset_defaults()


def test_an_event_is_a_json_line_with_its_fields(lines):
    configure_logs()
    structlog.get_logger("worker").warning("batch failed", error="boom", partitions=[1])

    (line,) = lines()
    assert (line["event"], line["level"], line["logger"]) == ("batch failed", "warning", "worker")
    assert (line["error"], line["partitions"]) == ("boom", [1])
    assert line["timestamp"].endswith("Z")


def test_a_librarys_record_looks_alike_and_the_clients_chatter_is_left_out(lines):
    configure_logs()
    logging.getLogger("kafka.client").info("reconnecting")
    logging.getLogger("kafka.client").warning("broker %s is away", 1)

    (line,) = lines()
    assert (line["event"], line["level"]) == ("broker 1 is away", "warning")


def test_an_exception_is_one_line(lines):
    configure_logs()
    try:
        raise ValueError("odd")
    except ValueError as error:
        structlog.get_logger("worker").critical("exiting", exc_info=error)

    (line,) = lines()
    assert "ValueError: odd" in line["exception"]
