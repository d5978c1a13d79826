"""A tenth of all input is broken in every way: each has its reason, no click is lost."""

import json
from collections import Counter
from itertools import cycle, islice

import pytest

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.matrix("F33")]

NOW_MS = 1_790_000_000_000
NUM_CLICKS = 2_000
USERS = 37


def body(**fields):
    return json.dumps({"user_id": "u0", "item_id": "i1", "timestamp": NOW_MS} | fields).encode()


POISON = [  # (reason, value)
    ("malformed", b'{"user_id": "u0", '),
    ("malformed", b""),
    ("malformed", None),
    ("malformed", body() + b"x"),
    ("malformed", body(item_id="x").replace(b'"x"', b'"\\ud800"')),
    ("missing", json.dumps({"user_id": "u0", "timestamp": NOW_MS}).encode()),
    ("hostile", body(timestamp=float("nan"))),
    ("hostile", body().replace(str(NOW_MS).encode(), b"1e999")),
    ("hostile", b'{"x": ' + b"[" * 8_000),
    ("range", body(timestamp=10**19)),
    ("type", body(timestamp=True)),
    ("encoding", body().decode().encode("utf-16")),
    ("id", body(item_id="a\u200bb")),
    ("id", body(item_id="x" * 129)),
    ("oversize", body(context={"x": "y" * 20_000})),
    ("misrouted", body(user_id="somebody")),
]


@pytest.fixture(params=["at_least_once", "exactly_once"])
def processing(request):
    return {"guarantee": request.param, "slot": "a"}


def send_mixed(system, num_clicks):
    """Send clicks of which every tenth is poison; returns the reasons of the poison."""
    reasons = Counter()
    poison = islice(cycle(POISON), num_clicks // 10)
    for n in range(num_clicks):
        if n % 10:
            system.click(f"u{n % USERS}", f"i{n % 200}")
        else:
            reason, value = next(poison)
            reasons[reason] += 1
            system.send(value, "u0")
    system.flush()
    return reasons


def last_poll(worker):
    return worker.value("last_poll_timestamp_seconds")


def test_every_poisoned_record_gets_its_reason_and_every_click_its_answer(
    kafka, make_system, publish_bundle, wait_until, processing
):
    tolerant = {"breaker": {"max_dead_share": 1.0}}
    system = make_system(kafka, processing=processing, worker=tolerant)
    system.announce(publish_bundle())
    worker = system.start_worker()

    reasons = send_mixed(system, NUM_CLICKS)
    wait_until(lambda: worker.value("clicks_total") == NUM_CLICKS, 60, "each has an outcome")
    worker.stop()

    counted = {reason: worker.value("dead_letters_total", reason=reason) for reason in reasons}
    assert counted == reasons
    report = system.verify()
    assert report.violations == []
    assert (report.clicks, report.pending, report.repeated) == (NUM_CLICKS, 0, 0)
    assert report.dead_letters == NUM_CLICKS // 10
    assert report.sessions == report.states == USERS


def test_too_much_poison_stops_the_worker_before_it_drains_the_topic(
    kafka, make_system, publish_bundle, wait_until, processing
):
    system = make_system(kafka, processing=processing)
    system.announce(publish_bundle())
    worker = system.start_worker()
    send_mixed(system, 500)
    wait_until(lambda: worker.health.missing == ["dead_letters"], 60, "the breaker opens")
    answered = worker.value("clicks_total")
    for n in range(100):
        system.click(f"u{n % USERS}", f"i{n}")
    system.flush()
    polled = last_poll(worker)
    wait_until(lambda: last_poll(worker) > polled + 2, 30, "it has polled for two seconds more")

    assert worker.value("worker_breaker_open") == 1
    assert worker.value("clicks_total") == answered
    assert worker.health.alive
    worker.stop()
    stopped = system.verify()
    assert stopped.violations == []
    assert stopped.clicks + stopped.pending == 600
    assert stopped.pending >= 100

    mended = system.start_worker()
    wait_until(lambda: answered + mended.value("clicks_total") == 600, 60, "the rest is answered")
    mended.stop()
    report = system.verify()
    assert report.violations == []
    assert (report.clicks, report.pending) == (600, 0)
