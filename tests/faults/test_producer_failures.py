"""A producer that fails once in the middle of a batch: rolled back or settled, never guessed."""

import time

import pytest
from kafka import KafkaConsumer
from kafka.errors import KafkaTimeoutError

from stream import clients, record_batches
from stream.headers import provenance

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.always]


class FailsOnce:
    """Makes a function raise at its `count`-th call, before or after its work; 0 is never."""

    def __init__(self, monkeypatch, owner, name, count, *, after=False):
        self._left = count
        self._after = after
        self._real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **options: self._call(*args, **options))

    def fail_next(self):
        self._left = 1

    def _call(self, *arguments, **options):
        self._left -= 1
        if self._left:
            return self._real(*arguments, **options)
        if self._after:
            self._real(*arguments, **options)
        raise KafkaTimeoutError("planted")


@pytest.mark.parametrize(
    "fault",
    [("put", 3, False), ("put", 6, True), ("flush", 2, False), ("flush", 2, True)],
)
def test_a_batch_whose_producer_fails_is_answered_again(
    system, publish_bundle, wait_until, monkeypatch, fault
):
    system.announce(publish_bundle())
    real, made = clients.producer, []

    def first_fails(settings, *, client_id):
        made.append(real(settings, client_id=client_id))
        if len(made) == 1:
            name, count, after = fault
            owner = record_batches if name == "put" else made[0]
            FailsOnce(monkeypatch, owner, name, count, after=after)
        return made[-1]

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
    broken = FailsOnce(monkeypatch, record_batches, "put", 0)
    worker = system.start_worker()
    start_ms = time.time_ns() // 1_000_000 - 1_000_000
    for n in range(1000):  # the longest idle ones are on both partitions
        system.click(f"u{n}", f"i{n % 200}", timestamp=start_ms + n)
    system.flush()
    wait_until(lambda: worker.value("clicks_total") == 1000, 30, "a thousand users are live")

    broken.fail_next()
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
