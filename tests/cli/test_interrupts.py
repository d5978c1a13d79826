"""Ctrl-C and SIGTERM during a long command."""

import os
import signal
from threading import Event

import pytest

from cli.interrupts import Interrupts


def send(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def test_a_signal_leaves_at_once_while_things_are_being_set_up():
    with pytest.raises(SystemExit) as left, Interrupts().installed():
        send()

    assert left.value.code == 128 + signal.SIGTERM


def test_the_first_signal_asks_and_the_second_leaves():
    interrupts, stop = Interrupts(), Event()

    with interrupts.installed(), interrupts.asking(stop):
        send(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(SystemExit):
            send(signal.SIGINT)


def test_nothing_disturbs_a_clean_up():
    interrupts = Interrupts()
    with interrupts.installed():
        interrupts.ignore()
        send()
        send(signal.SIGINT)


def test_the_handlers_before_come_back():
    before = signal.getsignal(signal.SIGTERM)

    with Interrupts().installed():
        assert signal.getsignal(signal.SIGTERM) != before

    assert signal.getsignal(signal.SIGTERM) == before
