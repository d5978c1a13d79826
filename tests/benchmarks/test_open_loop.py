"""Clicks at fixed times: a stall is not hidden, a lost answer is not left out."""

import numpy as np
import pytest

from benchmarks.open_loop import Place, Seen, Sent, latencies, offer, percentiles


class Clock:
    def __init__(self):
        self.seconds = 100.0

    def now(self):
        return self.seconds

    def sleep(self, seconds):
        self.seconds += seconds


def test_clicks_are_sent_at_even_distances():
    clock = Clock()

    given = offer(lambda n: (n, clock.now()), 4, 10, now=clock.now, sleep=clock.sleep)

    assert [due for due, _ in given] == pytest.approx([100.0, 100.1, 100.2, 100.3])
    assert [sent for _, (_, sent) in given] == pytest.approx([100.0, 100.1, 100.2, 100.3])


def test_a_stall_moves_no_due_time_and_what_it_held_up_goes_out_at_once():
    clock = Clock()
    sent = []

    def send(number):
        sent.append(clock.now())
        if number == 0:
            clock.sleep(0.25)

    given = offer(send, 5, 10, now=clock.now, sleep=clock.sleep)

    assert [due for due, _ in given] == pytest.approx([100.0, 100.1, 100.2, 100.3, 100.4])
    assert sent == pytest.approx([100.0, 100.25, 100.25, 100.3, 100.4])


def test_a_click_that_was_sent_late_counts_from_when_it_was_due():
    place = Place(1, 7)
    sent = [Sent(100.0, place, 100.25)]

    found = latencies(sent, {place: Seen(100.26, 100.255)})

    assert found.due_to_read == pytest.approx([260])
    assert found.append_to_read == pytest.approx([10])
    assert found.append_to_append == pytest.approx([5])
    assert found.publish == pytest.approx([250])


def test_a_click_without_an_answer_is_an_error_and_no_percentile():
    with pytest.raises(KeyError):
        latencies([Sent(100.0, Place(1, 7), 100.0)], {Place(1, 6): Seen(101.0, 101.0)})


def test_a_percentile_is_a_latency_that_was_there():
    found = percentiles(np.arange(1.0, 1001.0))

    assert found == {"p50": 501.0, "p99": 991.0, "p99.9": 1000.0, "max": 1000.0}
