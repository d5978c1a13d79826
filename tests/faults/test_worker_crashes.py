"""Workers that die, freeze, stall or are stopped while clicks come in: nothing is lost."""

import signal
import subprocess
import time

import pytest

pytestmark = [pytest.mark.kafka, pytest.mark.faults]
SESSION_TIMEOUT_MS = 3000
TRANSACTION_TIMEOUT_MS = 12_000
QUICK = {"session_timeout_ms": SESSION_TIMEOUT_MS, "heartbeat_interval_ms": 500}


@pytest.fixture(params=["at_least_once", "exactly_once"])
def processing(request):
    return {"guarantee": request.param, "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS}


@pytest.fixture
def quick_system(kafka, make_system, publish_bundle, processing):
    """A system whose dead members are noticed after three seconds."""
    made = make_system(kafka, kafka=QUICK, processing=processing)
    made.announce(publish_bundle())
    return made


@pytest.fixture
def impatient_system(kafka, make_system, publish_bundle, processing):
    """A system that gives up members who do not poll for four seconds."""
    made = make_system(kafka, kafka=QUICK | {"max_poll_interval_ms": 4000}, processing=processing)
    made.announce(publish_bundle())
    return made


@pytest.mark.matrix("F1")
@pytest.mark.parametrize("seed", [1, 2])
def test_after_kill_9_a_second_worker_answers_every_click(
    quick_system, start_process, start_load, answered, wait_until, seed
):
    victim = start_process(quick_system, slot="a")
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
    wait_until(lambda: answered(quick_system) == sent, 40, "every click is answered")

    seconds = time.monotonic() - killed
    report = quick_system.verify()
    assert report.violations == []
    assert (report.clicks, report.pending) == (sent, 0)
    assert report.sessions == report.states == 60
    # The victim's transaction, if one was open, is nobody's: brokers end it when its time is over.
    transactional = quick_system.settings.processing.guarantee == "exactly_once"
    orphan_ms = TRANSACTION_TIMEOUT_MS if transactional else 0
    assert seconds < (SESSION_TIMEOUT_MS + orphan_ms) / 1000 + 5


@pytest.mark.matrix("F4")
def test_a_frozen_worker_that_wakes_up_after_its_successor_breaks_nothing(
    quick_system, start_process, start_load, answered, wait_until
):
    frozen = start_process(quick_system, slot="a")
    wait_until(lambda: "sessions restored" in frozen.text, 60, "the first worker serves")
    load = start_load(quick_system, seed=4, per_second=1000)
    wait_until(lambda: answered(quick_system) > 300, 30, "it answers")

    frozen.signal(signal.SIGSTOP)
    successor = quick_system.start_worker()
    wait_until(lambda: successor.value("assigned_partitions") == 2, 30, "the other takes over")
    wait_until(lambda: successor.value("clicks_total") > 300, 60, "the other answers")
    frozen.signal(signal.SIGCONT)
    wait_until(
        lambda: successor.value("assigned_partitions") == 1 or not frozen.running,
        30,
        "the first is back, or has been fenced",
    )
    sent = load.stop()
    wait_until(lambda: answered(quick_system) == sent, 40, "every click is answered")

    report = quick_system.verify()
    assert report.violations == []
    assert (report.clicks, report.pending) == (sent, 0)
    assert frozen.exit_code in (None, 75)


@pytest.mark.matrix("F5", "D4")
def test_a_worker_whose_loop_stalls_beyond_the_poll_interval_is_refused_when_it_commits(
    impatient_system, start_process, start_load, answered, wait_until
):
    # Its IO thread lives on and leaves the group: the client then forgets who it was (D4).
    system = impatient_system
    stalled = start_process(system, slot="a", fail_point="mid_send:400:8")
    wait_until(lambda: "sessions restored" in stalled.text, 60, "the first worker serves")
    load = start_load(system, seed=6, per_second=600)
    wait_until(lambda: "mid_send reached" in stalled.text, 60, "its loop stalls")

    successor = system.start_worker()
    wait_until(lambda: successor.value("assigned_partitions") == 2, 30, "the other takes over")
    wait_until(lambda: " failed" in stalled.text, 60, "the first is refused")
    sent = load.stop()
    wait_until(lambda: answered(system) == sent, 60, "every click is answered")

    report = system.verify()
    assert report.violations == []
    assert (report.clicks, report.pending) == (sent, 0)
    assert stalled.exit_code in (None, 75)


@pytest.mark.matrix("F3")
def test_a_worker_ends_cleanly_on_sigterm_under_load(
    quick_system, start_process, start_load, answered, wait_until
):
    process = start_process(quick_system, slot="a")
    wait_until(lambda: "sessions restored" in process.text, 60, "the worker serves")
    load = start_load(quick_system, seed=5)
    wait_until(lambda: answered(quick_system) > 100, 30, "it answers")

    process.terminate()
    code = process.wait(10)
    load.stop()

    assert code == 0
    assert "worker stopped" in process.text
    report = quick_system.verify()
    assert report.violations == []
    assert report.repeated == 0


@pytest.mark.matrix("F3")
def test_a_second_sigterm_ends_a_worker_at_once(
    quick_system, start_process, start_load, answered, wait_until
):
    stuck = start_process(quick_system, slot="a", fail_point="mid_send:200:60")
    wait_until(lambda: "sessions restored" in stuck.text, 60, "the worker serves")
    load = start_load(quick_system, seed=7)
    wait_until(lambda: "mid_send reached" in stuck.text, 60, "it is in the middle of a batch")

    stuck.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        stuck.wait(1)
    stuck.terminate()
    code = stuck.wait(2)
    start_process(quick_system, slot="a")
    sent = load.stop()
    wait_until(lambda: answered(quick_system) == sent, 40, "its successor answers every click")

    assert code == 128 + signal.SIGTERM
    assert quick_system.verify().violations == []


@pytest.mark.matrix("F3")
def test_a_worker_that_waits_for_a_model_ends_cleanly_on_sigterm(
    kafka, make_system, processing, start_process, wait_until
):
    process = start_process(make_system(kafka, processing=processing))
    wait_until(lambda: "waiting for a model" in process.text, 60, "the worker waits")

    process.terminate()

    assert process.wait(10) == 0
