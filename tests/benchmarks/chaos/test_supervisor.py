"""The supervisor restarts slots, with growing pauses, and not at once after a fence."""

import pytest

from benchmarks.chaos.supervisor import Supervisor

SESSION_SECONDS = 3.0


class Process:
    def __init__(self):
        self.exit_code = None
        self.terminated = False

    @property
    def running(self):
        return self.exit_code is None

    def kill(self):
        self.exit_code = -9


@pytest.fixture
def world():
    """A supervisor of fake processes on a clock of its own."""

    class World:
        def __init__(self):
            self.now = 100.0
            self.started = []
            self.supervisor = Supervisor(
                self.start,
                seed=0,
                session_timeout_seconds=SESSION_SECONDS,
                monotonic=lambda: self.now,
            )

        def start(self, slot, number):
            self.started.append((slot, number, Process()))
            return self.started[-1][2]

        def end_last(self, code):
            """End the newest process; returns the seconds until another is started."""
            self.started[-1][2].exit_code = code
            known, ended = len(self.started), self.now
            self.supervisor.tick()
            while len(self.started) == known:
                self.now += 0.05
                self.supervisor.tick()
            return self.now - ended

    return World()


def test_an_added_slot_starts_at_once(world):
    world.supervisor.add("a")

    assert [(slot, number) for slot, number, _ in world.started] == [("a", 1)]
    assert world.supervisor.starts("a") == 1


def test_a_slot_that_keeps_failing_is_restarted_ever_more_slowly(world):
    world.supervisor.add("a")

    pauses = [world.end_last(70) for _ in range(8)]

    assert pauses[0] <= 0.5
    assert pauses[3] > 2 * pauses[0]
    assert 2.4 <= pauses[-1] <= 5.1
    assert [end.code for end in world.supervisor.exits] == [70] * 8


def test_a_long_life_resets_the_back_off(world):
    world.supervisor.add("a")
    for _ in range(6):
        world.end_last(-9)
    world.now += 60

    assert world.end_last(-9) <= 0.5


def test_after_a_fence_it_waits_for_the_session_timeout(world):
    world.supervisor.add("a")

    assert world.end_last(75) >= SESSION_SECONDS - 0.1


def test_a_released_slot_is_not_restarted(world):
    world.supervisor.add("a")

    process = world.supervisor.release("a")
    process.exit_code = 0
    world.supervisor.tick()
    world.now += 60
    world.supervisor.tick()

    assert len(world.started) == 1
    assert list(world.supervisor.running()) == []


def test_a_process_is_released_once_although_its_slot_is_wanted_again(world):
    world.supervisor.add("a")
    first = world.supervisor.release("a")
    world.supervisor.add("a")

    assert first is not None
    assert world.supervisor.release("a") is None


def test_an_added_slot_whose_process_still_leaves_starts_after_it(world):
    world.supervisor.add("a")
    world.supervisor.release("a")
    world.supervisor.add("a")

    assert len(world.started) == 1
    assert world.end_last(0) < 1.0


def test_end_all_leaves_nothing_running(world):
    world.supervisor.add("a")
    world.supervisor.add("b")

    world.supervisor.end_all()
    world.now += 60
    world.supervisor.tick()

    assert [process.exit_code for _, _, process in world.started] == [-9, -9]
