"""Threads of the client that die, hang or fail for ever: the worker mends it or ends."""

import os

import pytest
from kafka.errors import KafkaTimeoutError

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.matrix("F49")]
BUG = 70
QUICK = {"delivery_timeout_ms": 1_500, "request_timeout_ms": 1_000}
WATCHDOG_SECONDS = 30 + 3 * 1.5

# Each is a method of the client in place of the real one.
IO_THREAD = """
from kafka.net.selector import NetworkSelector as Owner
name = "_poll_once"
def struck(self):
    return current_thread() is self._io_thread and self.config["client_id"].endswith("-worker")
"""
SENDER = """
from kafka.producer.sender import Sender as Owner
name = "run_once"
def struck(self):
    first.append(self)
    return first[0] is self
"""
RAISE = "raise ZeroDivisionError('planted')"
BLOCK = "Event().wait()"
REPLACED = """
from threading import Event, current_thread
first = []
{where}
original = getattr(Owner, name)
def replaced(self, *arguments, **options):
    if os.path.exists(os.environ["TRIGGER"]) and struck(self):
        {what}
    return original(self, *arguments, **options)
setattr(Owner, name, replaced)
"""


@pytest.fixture(params=["at_least_once", "exactly_once"])
def served(request, kafka, make_system, publish_bundle):
    """A system with a version and clicks to answer."""
    processing = {"guarantee": request.param, "slot": "a"}
    system = make_system(kafka, kafka=QUICK, processing=processing)
    system.announce(publish_bundle())
    return system


def test_a_worker_whose_io_thread_died_exits_70(served, start_with_fault, wait_until):
    worker, strike = start_with_fault(served, REPLACED.format(where=IO_THREAD, what=RAISE))
    wait_until(lambda: "sessions restored" in worker.text, 60, "it serves")

    strike()

    assert worker.wait(30) == BUG
    assert "ZeroDivisionError: planted" in worker.text


def test_the_watchdog_ends_a_worker_whose_io_thread_hangs(served, start_with_fault, wait_until):
    worker, strike = start_with_fault(served, REPLACED.format(where=IO_THREAD, what=BLOCK))
    wait_until(lambda: "sessions restored" in worker.text, 60, "it serves")

    strike()

    assert worker.wait(WATCHDOG_SECONDS + 30) == BUG
    assert "no progress, exiting" in worker.text
    assert "most recent call first" in worker.text


def settled(ask):
    """The answer of `ask`; None while a transaction is open that nobody has ended yet."""
    try:
        return ask()
    except KafkaTimeoutError:
        return None


def test_a_sender_that_fails_for_ever_is_replaced(
    served, start_with_fault, start_load, answered, wait_until
):
    worker, strike = start_with_fault(served, REPLACED.format(where=SENDER, what=RAISE))
    wait_until(lambda: "sessions restored" in worker.text, 60, "it serves")
    load = start_load(served, seed=1)
    wait_until(lambda: answered(served) > 100, 30, "it answers")

    strike()
    wait_until(lambda: "ZeroDivisionError: planted" in worker.text, 30, "the sender fails")
    sent = load.stop()
    wait_until(lambda: settled(lambda: answered(served)) == sent, 90, "every click is answered")
    worker.terminate()

    assert worker.wait(20) == os.EX_OK
    report = served.verify()
    assert report.violations == []
    assert (report.clicks, report.pending) == (sent, 0)
