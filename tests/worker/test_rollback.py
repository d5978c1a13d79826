"""What an alarm leads to: one announcement, off the hot thread, never an error."""

import threading

import pytest
from kafka.errors import KafkaTimeoutError
from prometheus_client import CollectorRegistry

from stream.announcements import on_trial
from stream.messages import Gate, ModelAnnouncement
from worker.canary import Verdict
from worker.guard import Alarm
from worker.metrics import WorkerMetrics
from worker.rollback import Rollbacks

NOW_MS = 1_795_430_400_000


def announced(n: int) -> ModelAnnouncement:
    return ModelAnnouncement(
        name="default", version=f"20261123T{n:09d}Z-{n:08x}", kind="bundle", uri=f"file:///{n}",
        manifest_sha256="0" * 64, bytes=1, created_at=1, encoder_version="e",
        trained_through={}, metrics={}, gate=Gate(verdict="accepted"),
    )  # fmt: skip


def alarm(*, frozen=False):
    return Alarm(announced(2), announced(1), 0.01, 0.1, 1500, frozen=frozen)


class Topic:
    """A models topic in memory; the next call may fail, or wait until the test says so."""

    def __init__(self):
        self.records = [announced(1), announced(2)]
        self.errors = []
        self.open = threading.Event()
        self.open.set()

    def latest(self, name, kind="bundle"):
        assert name == "default"
        assert self.open.wait(10)
        if self.errors:
            raise self.errors.pop()
        return [record for record in self.records if record.kind == kind][-1]

    def announce(self, announcement):
        self.records.append(announcement)


class Bench:
    def __init__(self):
        self.topic = Topic()
        self.registry = CollectorRegistry()
        metrics = WorkerMetrics(self.registry)
        self.rollbacks = Rollbacks(self.topic, metrics, lambda: NOW_MS)

    def request(self, **options):
        self.rollbacks.request(alarm(**options))

    def settle(self):
        self.rollbacks.close()

    def count(self, outcome):
        labels = {"outcome": outcome}
        return self.registry.get_sample_value("nextclick_model_rollbacks_total", labels) or 0

    @property
    def sent(self):
        return self.topic.records[2:]


@pytest.fixture
def bench():
    return Bench()


def test_the_version_before_is_announced_as_a_new_one(bench):
    bench.request()
    bench.settle()

    (sent,) = bench.sent
    assert sent.restores == announced(1).version
    assert (sent.uri, sent.manifest_sha256) == (announced(1).uri, announced(1).manifest_sha256)
    assert sent.version > announced(2).version
    assert sent.version.endswith("Z-00000001")
    assert sent.gate == Gate(verdict="rolled_back", reason=str(alarm()))
    assert bench.count("announced") == 1


def test_a_bad_version_is_given_up_once(bench):
    for _ in range(3):
        bench.request()
        bench.settle()

    assert len(bench.sent) == 1


def test_it_does_not_wait_and_does_one_thing_at_a_time(bench):
    bench.topic.open.clear()

    bench.request()
    bench.request()
    bench.topic.open.set()
    bench.settle()

    assert len(bench.sent) == 1


@pytest.mark.parametrize("error", [KafkaTimeoutError("away"), ConnectionError("away")])
def test_what_could_not_be_announced_is_tried_again_at_the_next_alarm(bench, error):
    bench.topic.errors = [error]

    bench.request()
    bench.settle()
    failed = list(bench.sent)
    bench.request()
    bench.settle()

    assert failed == []
    assert len(bench.sent) == 1
    assert (bench.count("failed"), bench.count("announced")) == (1, 1)


def test_what_somebody_has_replaced_already_is_left(bench):
    bench.topic.records.append(announced(3))

    bench.request()
    bench.settle()

    assert bench.sent == [announced(3)]
    assert bench.count("announced") == 0


def test_a_frozen_alarm_is_counted_and_left_to_people(bench):
    bench.request(frozen=True)
    bench.settle()

    assert bench.sent == []
    assert bench.count("frozen") == 1


def test_a_version_on_trial_is_withdrawn_once_and_nobody_gets_its_lists(bench):
    trial = on_trial(announced(3), 0.05)
    bench.topic.records.append(trial)
    verdict = Verdict(trial, 0.1, 0.3, 1_600)

    for _ in range(2):
        bench.rollbacks.withdraw(verdict)
        bench.settle()

    (_, sent) = bench.sent
    assert (sent.kind, sent.share, sent.version) == ("canary", 0.0, trial.version)
    assert sent.gate == Gate(verdict="rolled_back", reason=str(verdict))
    assert (bench.count("withdrawn"), bench.count("announced")) == (1, 0)


def test_a_trial_that_another_has_followed_is_left(bench):
    trial = on_trial(announced(3), 0.05)
    bench.topic.records += [trial, on_trial(announced(4), 0.05)]

    bench.rollbacks.withdraw(Verdict(trial, 0.1, 0.3, 1_600))
    bench.settle()

    assert len(bench.sent) == 2
    assert bench.count("withdrawn") == 0
