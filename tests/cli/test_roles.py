"""A role from its start to its exit code: signals and errors."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from cli import roles
from cli.roles import run_role, single_thread

ROLE = """
import os, signal, sys, threading, types
# Numeric libraries take seconds to load.
sys.modules["torch"] = types.SimpleNamespace(set_num_threads=lambda n: None)
sys.modules["index.threads"] = types.SimpleNamespace(use_threads=lambda n: None)
from cli.roles import run_role
done = threading.Event()
def construct():
    {construct}
    return (lambda: ({run})), done.set
run_role(construct, name="test")
"""


class LeftError(BaseException):
    """The process would have ended here."""


@pytest.fixture
def role(monkeypatch):
    """Run a role in this process; returns the exit code at which it would have left, or None."""

    def leave(code):
        raise LeftError(code)

    def run(construct):
        try:
            run_role(construct, name="test")
        except LeftError as left:
            return left.args[0]
        return None

    monkeypatch.setattr(roles, "single_thread", lambda: None)
    monkeypatch.setattr(roles.os, "_exit", leave)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


def test_a_role_that_ends_leaves_nothing_behind(role):
    assert role(lambda: (lambda: None, lambda: None)) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_role_in_order(role, number):
    done, steps = threading.Event(), []

    def run():
        send(number)
        steps.append(done.wait(10))

    assert role(lambda: (run, done.set)) is None
    assert steps == [True]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(role, second):
    def run():
        send(signal.SIGTERM)
        send(second)
        pytest.fail("not reached")

    assert role(lambda: (run, lambda: None)) == 128 + second


def test_a_signal_while_it_is_constructed_ends_it_at_once(role):
    assert role(lambda: send(signal.SIGTERM)) == 128 + signal.SIGTERM


def erring(error):
    def run():
        raise error

    return run


def errors():
    from kafka.errors import CorruptRecordError, KafkaTimeoutError, TopicAuthorizationFailedError

    from stream.changelog import StateMismatchError
    from stream.topics import TopicMismatchError

    return [
        (ValueError("odd"), 70),
        (StateMismatchError("cut"), 71),
        (CorruptRecordError("bits"), 74),
        (KafkaTimeoutError("away"), 75),
        (TopicAuthorizationFailedError("not yours"), 77),
        (TopicMismatchError("three partitions"), 78),
    ]


@pytest.mark.parametrize(("error", "code"), errors())
@pytest.mark.parametrize("constructing", [True, False])
def test_an_error_has_its_exit_code(role, error, code, constructing):
    construct = erring(error) if constructing else lambda: (erring(error), lambda: None)

    assert role(construct) == code


def process(*, construct="pass", run="None"):
    """Run a role in a process of its own; returns the finished process."""
    script = ROLE.format(construct=construct, run=run)
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_process_ends_at_the_second_signal():
    again = "os.kill(os.getpid(), signal.SIGTERM)"

    done = process(run=f"{again}, print('stopping', flush=True), {again}, print('not reached')")

    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "stopping\n")


def test_a_process_says_why_it_ends_and_hanging_threads_do_not_hold_it():
    hang = "threading.Thread(target=threading.Event().wait).start(); raise ValueError('odd')"

    done = process(construct=hang)

    assert done.returncode == 70
    assert "odd" in done.stdout + done.stderr


def test_a_role_has_one_numeric_thread():
    import faiss
    import torch

    torch.set_num_threads(2)
    faiss.omp_set_num_threads(2)

    single_thread()

    assert (torch.get_num_threads(), faiss.omp_get_max_threads()) == (1, 1)
