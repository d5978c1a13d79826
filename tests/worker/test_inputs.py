"""Where every kind of input ends, on real Kafka, and that the worker keeps running and counting."""

import json
from collections import Counter

import pytest

from stream.dead_letters import parse
from stream.validation import partition_of

pytestmark = pytest.mark.kafka

NOW_MS = 1_790_000_000_000


def body(**fields):
    return json.dumps({"user_id": "u", "item_id": "i1", "timestamp": NOW_MS} | fields)


DEAD = {
    "malformed JSON": (b'{"user_id": "u", ', "malformed"),
    "an empty value": (b"", "malformed"),
    "no value": (None, "malformed"),
    "bytes after the end": (body() + "x", "malformed"),
    "a lone surrogate": (body(item_id="x").replace('"x"', '"\\ud800"'), "malformed"),
    "a missing field": (json.dumps({"user_id": "u", "timestamp": NOW_MS}), "missing"),
    "NaN": (body(timestamp=float("nan")), "hostile"),
    "infinity": (body().replace(str(NOW_MS), "1e999"), "hostile"),
    "deep nesting": (b'{"x": ' + b"[" * 8000, "hostile"),
    "a number of many digits": (body(timestamp=10**19), "range"),
    "true as a time": (body(timestamp=True), "type"),
    "UTF-16": (body().encode("utf-16"), "encoding"),
    "an id that does not print": (body(item_id="a\u200bb"), "id"),
    "an id of 129 bytes": (body(item_id="x" * 129), "id"),
    "2 MB": (body(context={"x": "y" * 2_000_000}), "oversize"),
    "another user's key": (body(user_id="somebody"), "misrouted"),
}
SKIPPED = {
    "another event type": (body(type="purchase"), "unsupported"),
    "a newer schema": (body(schema=2), "unsupported"),
    "a time before the sessions": (body(timestamp=1_000_000_000_000), "ancient"),
    "a negative time": (body(timestamp=-1), "ancient"),
}
ANSWERED = {
    "an unknown item": body(item_id="nobody knows it"),
    "a time far ahead": body(timestamp=4_000_000_000_000),
    "a written date": body(timestamp="2026-11-23T10:00:00+01:00"),
    "seconds": body(timestamp=NOW_MS // 1000),
    "microseconds": body(timestamp=NOW_MS * 1000),
    "duplicate keys": body()[:-1] + ', "item_id": "i2"}',
    "no consent": body(consent=False),
    "unknown fields": body(colour="red", nested={"a": [1]}),
}


@pytest.fixture
def answered_inputs(make_system, kafka, publish_bundle, wait_until):
    """A worker that has met every input, between two clicks of the same user."""
    sections = {"sessions": {"ttl_days": 3650.0}}
    system = make_system(kafka, worker=sections)
    system.announce(publish_bundle())
    worker = system.start_worker()
    partition = partition_of(b"u", 2)
    inputs = [
        *(value for value, _ in (*DEAD.values(), *SKIPPED.values())),
        *ANSWERED.values(),
    ]
    for value in (body(), *inputs, body(event_id="e1"), body(event_id="e1")):
        system.send(value, "u")
    system.send(body(), None, partition=partition)
    system.send(body(), None, partition=1 - partition)
    system.flush()
    total = len(inputs) + 5
    wait_until(lambda: worker.value("clicks_total") == total, 30, f"{total} outcomes")
    return system, worker


def test_each_input_ends_where_it_should_and_is_counted(answered_inputs):
    system, worker = answered_inputs

    dead = Counter(reason for _, reason in DEAD.values())
    dead["misrouted"] += 1  # no key, on a partition that is not the user's
    for reason, count in dead.items():
        assert worker.value("dead_letters_total", reason=reason) == count, reason
    assert Counter(parse(r).reason for r in system.records("dead_letters")) == dead
    assert worker.value("clicks_skipped_total", reason="unsupported") == 2
    assert worker.value("clicks_skipped_total", reason="ancient") == 2
    assert worker.value("clicks_skipped_total", reason="duplicate") == 1
    assert len(system.recommendations()) == len(ANSWERED) + 3
    assert worker.value("unknown_items_total") == 1
    assert worker.health.missing == []
    worker.stop()
    report = system.verify()
    assert report.violations == []
    assert report.dead_letters == dead.total()
    assert report.skipped == {"unsupported": 2, "ancient": 2, "duplicate": 1}
    assert (report.sessions, report.states) == (1, 1)


def test_a_dead_letter_keeps_the_bytes_unless_they_are_too_many(answered_inputs):
    system, _ = answered_inputs

    letters = {letter.reason: letter for letter in map(parse, system.records("dead_letters"))}

    assert letters["missing"].value == DEAD["a missing field"][0].encode()
    assert letters["missing"].key == b"u"
    assert len(letters["oversize"].value) == 1024


def test_a_future_time_becomes_the_logs(answered_inputs):
    system, _ = answered_inputs
    log_time = {r.offset: r.timestamp for r in system.records("clicks") if r.key == b"u"}

    for recommendation in system.recommendations():
        place = recommendation.recommendation_id.rsplit("/", 1)[1]
        assert recommendation.trigger.timestamp <= log_time.get(int(place), 2**62) + 300_000


def test_a_click_with_hostile_headers_is_answered(system, publish_bundle, wait_until):
    system.announce(publish_bundle())
    worker = system.start_worker()
    hostile = [("x", b"\xff\xfe"), ("traceparent", b"t" * 5000)]

    system.producer.send(
        system.settings.topics.clicks, value=body().encode(), key=b"u", headers=hostile
    )
    system.producer.send(
        system.settings.topics.clicks,
        value=b"{",
        key=b"u",
        headers=[("content-type", b"x" * 1_500_000), *hostile],
    )
    system.flush()
    wait_until(lambda: worker.value("clicks_total") == 2, 30, "both have an outcome")
    worker.stop()

    assert worker.value("commit_failures_total", reason="rolled_back") == 0
    assert system.verify().violations == []
