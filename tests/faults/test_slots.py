"""Two processes in one slot: one at a time, and no quarrel faster than the back-off."""

import time

import pytest

from benchmarks.chaos.supervisor import Supervisor

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.matrix("F6")]
SESSION_TIMEOUT_SECONDS = 3.0
QUARREL_SECONDS = 15.0
FENCED = 75


@pytest.fixture(params=["transactional id", "static member"])
def system(request, kafka, make_system, publish_bundle):
    """A system whose workers are told apart by their slot."""
    processing = {"guarantee": "exactly_once", "slot": "a"}
    if request.param == "static member":
        processing = {"slot": "a", "static_members": True}
    made = make_system(
        kafka,
        kafka={
            "session_timeout_ms": int(1000 * SESSION_TIMEOUT_SECONDS),
            "heartbeat_interval_ms": 500,
        },
        processing=processing,
    )
    made.announce(publish_bundle())
    return made


def test_the_first_of_two_processes_in_one_slot_ends_with_75(
    system, start_process, start_load, answered, wait_until
):
    first = start_process(system, slot="a")
    wait_until(lambda: "sessions restored" in first.text, 60, "the first serves")
    load = start_load(system, seed=1)
    wait_until(lambda: answered(system) > 100, 30, "it answers")

    second = start_process(system, slot="a")
    code = first.wait(30)
    sent = load.stop()
    wait_until(lambda: answered(system) == sent, 40, "the second answers every click")

    assert code == FENCED
    assert second.running
    report = system.verify()
    assert report.violations == []
    assert (report.clicks, report.pending) == (sent, 0)


def test_two_supervised_processes_in_one_slot_do_not_restart_faster_than_the_back_off(
    system, start_process, start_load, answered, wait_until
):
    load = start_load(system, seed=2, per_second=100)
    supervisor = Supervisor(
        lambda name, number: start_process(system, slot="a"),
        seed=2,
        session_timeout_seconds=SESSION_TIMEOUT_SECONDS,
    )
    supervisor.add("one")
    wait_until(lambda: answered(system) > 0, 30, "the first serves")
    supervisor.add("other")
    quarrel_ends = time.monotonic() + QUARREL_SECONDS

    def quarrelled():
        supervisor.tick()
        return time.monotonic() > quarrel_ends

    wait_until(quarrelled, QUARREL_SECONDS + 10, "they fence each other for a while")
    loser = supervisor.release("other")
    if loser is not None:
        loser.kill()
    sent = load.stop()

    def all_answered():
        supervisor.tick()
        return answered(system) == sent

    wait_until(all_answered, 60, "the one that is left answers every click")
    codes = [end.code for end in supervisor.exits if end.process is not loser]
    assert set(codes) == {FENCED}
    assert len(codes) <= 2 * QUARREL_SECONDS / SESSION_TIMEOUT_SECONDS + 2
    assert system.verify().violations == []
