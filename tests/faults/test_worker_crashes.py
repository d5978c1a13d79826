"""Workers that die, freeze or are stopped while clicks come in: nothing is lost."""

import signal
import time

import pytest

pytestmark = pytest.mark.kafka
SESSION_TIMEOUT_MS = 3000
QUICK = {"session_timeout_ms": SESSION_TIMEOUT_MS, "heartbeat_interval_ms": 500}


@pytest.fixture
def quick_system(kafka, make_system, publish_bundle):
    """A system whose dead members are noticed after three seconds."""
    made = make_system(kafka, kafka=QUICK)
    made.announce(publish_bundle())
    return made


@pytest.mark.parametrize("seed", [1, 2])
def test_after_kill_9_a_second_worker_answers_every_click(
    quick_system, start_process, start_load, answered, wait_until, seed
):
    victim = start_process(quick_system)
    wait_until(lambda: "sessions restored" in victim.text, 60, "the first worker serves")
    load = start_load(quick_system, seed=seed, per_second=1500)
    wait_until(lambda: answered(quick_system) > 300 * seed, 30, "it answers")
    successor = quick_system.start_worker()
    wait_until(lambda: successor.value("assigned_partitions") == 1, 30, "they share the partitions")
    wait_until(lambda: successor.value("clicks_total") > 50, 30, "both answer")

    victim.kill()
    killed = time.monotonic()
    wait_until(lambda: successor.value("assigned_partitions") == 2, 30, "it takes over")
    sent = load.stop()
    wait_until(lambda: answered(quick_system) == sent, 30, "every click is answered")

    seconds = time.monotonic() - killed
    report = quick_system.verify()
    assert report.violations == []
    assert (report.clicks, report.pending) == (sent, 0)
    assert report.sessions == report.states == 60
    assert seconds < SESSION_TIMEOUT_MS / 1000 + 5


def test_a_frozen_worker_that_wakes_up_after_its_successor_breaks_nothing(
    quick_system, start_process, start_load, answered, wait_until
):
    frozen = start_process(quick_system)
    wait_until(lambda: "sessions restored" in frozen.text, 60, "the first worker serves")
    load = start_load(quick_system, seed=4, per_second=1000)
    wait_until(lambda: answered(quick_system) > 300, 30, "it answers")

    frozen.signal(signal.SIGSTOP)
    successor = quick_system.start_worker()
    wait_until(lambda: successor.value("assigned_partitions") == 2, 30, "the other takes over")
    wait_until(lambda: successor.value("clicks_total") > 300, 30, "the other answers")
    frozen.signal(signal.SIGCONT)
    wait_until(lambda: successor.value("assigned_partitions") == 1, 30, "the first is back")
    sent = load.stop()
    wait_until(lambda: answered(quick_system) == sent, 30, "every click is answered")

    report = quick_system.verify()
    assert report.violations == []
    assert (report.clicks, report.pending) == (sent, 0)
    assert frozen.running


def test_a_worker_ends_cleanly_on_sigterm_under_load(
    quick_system, start_process, start_load, answered, wait_until
):
    process = start_process(quick_system)
    wait_until(lambda: "sessions restored" in process.text, 60, "the worker serves")
    load = start_load(quick_system, seed=5)
    wait_until(lambda: answered(quick_system) > 100, 30, "it answers")

    process.signal(signal.SIGTERM)
    code = process.wait(10)
    load.stop()

    assert code == 0
    assert "worker stopped" in process.text
    report = quick_system.verify()
    assert report.violations == []
    assert report.repeated == 0


def test_a_worker_that_waits_for_a_model_ends_cleanly_on_sigterm(
    kafka, make_system, start_process, wait_until
):
    process = start_process(make_system(kafka))
    wait_until(lambda: "waiting for a model" in process.text, 60, "the worker waits")

    process.signal(signal.SIGTERM)

    assert process.wait(10) == 0
