"""A role from its start to its exit code: signals, errors, in a process of its own."""

import signal
import subprocess
import sys

import pytest

ROLE = """
import signal, threading, types, os, sys
{libraries}
from cli.roles import run_role
done = threading.Event()
def construct():
    {construct}
    return (lambda: ({run})), done.set
run_role(construct, name="test")
"""

# Numeric libraries take seconds to load, and only one test looks at them.
STUBS = """
sys.modules["torch"] = types.SimpleNamespace(set_num_threads=lambda n: None)
sys.modules["index.threads"] = types.SimpleNamespace(use_threads=lambda n: None)
"""


@pytest.fixture
def role():
    """Run a role; returns the finished process."""

    def run(*, construct="pass", body="None", libraries=STUBS):
        script = ROLE.format(construct=construct, run=body, libraries=libraries)
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    return run


def test_a_role_that_ends_exits_0(role):
    assert role().returncode == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_stops_a_role_cleanly(role, name):
    done = role(body=f"os.kill(os.getpid(), signal.{name}), done.wait(30), print('left in order')")

    assert (done.returncode, done.stdout) == (0, "left in order\n")


def test_a_second_signal_ends_it_at_once(role):
    again = "os.kill(os.getpid(), signal.SIGTERM)"
    done = role(body=f"{again}, {again}, print('not reached')")

    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "")


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("raise ValueError('odd')", 70),
        ("from kafka.errors import KafkaTimeoutError; raise KafkaTimeoutError('away')", 75),
        ("from stream.changelog import StateMismatchError as E; raise E('cut')", 71),
    ],
)
def test_an_error_has_its_exit_code_and_says_why(role, statement, code):
    done = role(construct=statement)

    assert done.returncode == code
    assert statement.rsplit("(", 1)[1].strip("')") in done.stdout + done.stderr


def test_hanging_threads_do_not_hold_the_exit(role):
    hang = "threading.Thread(target=threading.Event().wait).start(); raise ValueError('odd')"

    assert role(construct=hang).returncode == 70


def test_a_process_has_one_numeric_thread(role):
    body = "print(__import__('torch').get_num_threads(), __import__('faiss').omp_get_max_threads())"

    assert role(body=body, libraries="").stdout == "1 1\n"
