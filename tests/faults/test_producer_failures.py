"""A producer that fails once in the middle of a batch: rolled back or settled, never guessed."""

import time

import pytest
from kafka import KafkaConsumer
from kafka.errors import KafkaTimeoutError

from stream import clients
from stream.headers import provenance

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.always]


class FailingOnce:
    """A real producer whose `method` raises at its `count`-th call, before or after its work."""

    def __init__(self, producer, method, count, after):
        self._producer = producer
        self._method = method
        self._left = count
        self._after = after

    def fail_next(self):
        self._left = 1

    def __getattr__(self, name):
        real = getattr(self._producer, name)
        if name != self._method or self._left <= 0:
            return real

        def call(*arguments, **options):
            self._left -= 1
            if self._left:
                return real(*arguments, **options)
            if self._after:
                real(*arguments, **options)
            raise KafkaTimeoutError("planted")

        return call


@pytest.mark.parametrize(
    "fault",
    [("send", 20, False), ("send", 41, True), ("flush", 2, False), ("flush", 2, True)],
)
def test_a_batch_whose_producer_fails_is_answered_again(
    system, publish_bundle, wait_until, monkeypatch, fault
):
    system.announce(publish_bundle())
    real, made = clients.producer, []

    def first_fails(settings, *, client_id):
        made.append(real(settings, client_id=client_id))
        return made[-1] if len(made) > 1 else FailingOnce(made[-1], *fault)

    monkeypatch.setattr(clients, "producer", first_fails)
    for n in range(60):
        system.click(f"u{n % 5}", f"i{n}")
    system.flush()
    worker = system.start_worker()
    wait_until(lambda: worker.value("clicks_total") == 60, 30, "every click is answered")
    for n in range(20):
        system.click(f"u{n % 5}", f"i{n + 60}")
    system.flush()
    wait_until(lambda: worker.value("clicks_total") == 80, 30, "and those after")
    worker.stop()

    assert len(made) == 2
    assert worker.value("commit_failures_total", reason="rolled_back") == 1
    answers = [provenance(record.headers) for record in system.records("recommendations")]
    assert not any(answer.replayed for answer in answers), "the sessions were not undone"
    report = system.verify()
    assert report.violations == []
    assert (report.clicks, report.pending, report.sessions, report.states) == (80, 0, 5, 5)


def test_a_commit_whose_answer_was_lost_is_kept(system, publish_bundle, wait_until, monkeypatch):
    system.announce(publish_bundle())
    worker = system.start_worker()
    wait_until(lambda: worker.value("assigned_partitions") == 2, 30, "it serves")
    real, failed = KafkaConsumer.commit, []

    def commit(self, *arguments, **options):
        real(self, *arguments, **options)
        if not failed:
            failed.append(True)
            raise KafkaTimeoutError("planted")

    monkeypatch.setattr(KafkaConsumer, "commit", commit)
    for n in range(30):
        system.click(f"u{n % 5}", f"i{n}")
    system.flush()
    wait_until(lambda: worker.value("clicks_total") == 30, 30, "every click is answered")
    worker.stop()

    assert failed
    report = system.verify()
    assert report.violations == []
    assert (report.clicks, report.repeated, report.pending) == (30, 0, 0)


def test_an_eviction_that_failed_is_undone_on_every_partition(
    make_system, kafka, publish_bundle, wait_until, monkeypatch
):
    system = make_system(kafka, worker={"sessions": {"max_live": 1000}})
    system.announce(publish_bundle())
    real, broken = clients.producer, []

    def breakable(settings, *, client_id):
        broken.append(FailingOnce(real(settings, client_id=client_id), "send", 0, False))
        return broken[-1]

    monkeypatch.setattr(clients, "producer", breakable)
    worker = system.start_worker()
    start_ms = time.time_ns() // 1_000_000 - 1_000_000
    for n in range(1000):  # the longest idle ones are on both partitions
        system.click(f"u{n}", f"i{n % 200}", timestamp=start_ms + n)
    system.flush()
    wait_until(lambda: worker.value("clicks_total") == 1000, 30, "a thousand users are live")

    broken[0].fail_next()
    system.click("one too many", "i1")
    system.flush()
    wait_until(lambda: worker.value("clicks_total") == 1001, 30, "the batch is answered again")
    for n in range(40):
        system.click(f"u{n}", "i7")
    system.flush()
    wait_until(lambda: worker.value("clicks_total") == 1041, 30, "the evicted click again")
    worker.stop()

    assert worker.value("commit_failures_total", reason="rolled_back") == 1
    assert system.verify().violations == []
