"""Notes of rebalances: live is always a part of what is held."""

import time
from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaConsumer, TopicPartition
from kafka.structs import ConsumerGroupMetadata

from stream.assignment import Assignment, Lease, membership

TPS = [TopicPartition("clicks", n) for n in range(4)]
SETS = st.sets(st.sampled_from(TPS))


@pytest.fixture
def consumer():
    return create_autospec(KafkaConsumer, spec_set=True, instance=True)


def test_a_new_partition_is_paused_until_it_is_restored(consumer):
    assignment = Assignment(consumer)

    assignment.on_partitions_assigned(TPS[:1])

    consumer.pause.assert_called_once_with(TPS[0])
    assert (assignment.new, assignment.live, assignment.rebalances) == ({TPS[0]}, set(), 1)


def test_a_partition_that_went_and_came_back_is_restored(consumer):
    assignment = Assignment(consumer)
    assignment.live = {TPS[0], TPS[1]}

    assignment.on_partitions_revoked(TPS[:2])
    assignment.on_partitions_assigned(TPS[:1])

    assert assignment.new == {TPS[0]}
    assert assignment.take_gone() == set(TPS[:2])
    assert assignment.live == set()
    assert assignment.take_gone() == set()


def test_a_partition_that_came_and_went_is_not_restored(consumer):
    assignment = Assignment(consumer)

    assignment.on_partitions_assigned(TPS[:1])
    assignment.on_partitions_lost(TPS[:1])

    assert assignment.new == set()


class Quick:
    """A consumer that can only be paused; making an autospec for every example is slow."""

    def pause(self, *partitions):
        pass


@given(steps=st.lists(st.tuples(st.sampled_from(["assigned", "revoked", "lost", "loop"]), SETS)))
def test_live_is_part_of_what_is_held_after_any_sequence(steps):
    assignment = Assignment(Quick())
    held = set()
    for step, partitions in steps:
        if step == "assigned":
            held |= partitions
            assignment.on_partitions_assigned(partitions)
        elif step == "loop":
            assignment.take_gone()
            assignment.live |= assignment.new
            assignment.new = set()
            assert assignment.live == held
        else:
            getattr(assignment, f"on_partitions_{step}")(partitions & held)
            held -= partitions
        assert assignment.live - assignment.gone <= held
        assert assignment.new <= held


@pytest.mark.parametrize(
    ("generation", "member", "counted"), [(7, "m", True), (7, "", False), (-1, "", False)]
)
def test_a_membership_needs_a_generation_and_a_member_id(consumer, generation, member, counted):
    metadata = ConsumerGroupMetadata("app", generation, member, None)
    consumer.group_metadata.return_value = metadata

    assert membership(consumer) == (metadata if counted else None)


class Coordinator:
    """What the client keeps of its membership, as of a number of seconds ago."""

    def __init__(self, heard, joined, stable=True, heartbeat_enabled=True):
        now = time.monotonic()
        self.heartbeat = SimpleNamespace(last_receive=now - heard, last_reset=now - joined)
        self._heartbeat_enabled = heartbeat_enabled
        self.stable = lambda: stable


def lease_of(coordinator):
    return Lease(SimpleNamespace(_coordinator=coordinator, config={"session_timeout_ms": 10_000}))


@pytest.mark.parametrize(("heard", "joined", "held"), [(7, 99, True), (99, 7, True), (9, 9, False)])
def test_a_lease_is_held_for_most_of_the_session_timeout_after_the_group_was_heard(
    heard, joined, held
):
    assert lease_of(Coordinator(heard, joined)).held is held


@pytest.mark.parametrize(
    ("heard", "stable", "heartbeat_enabled", "fenced"),
    [
        (9, True, False, True),
        (9, True, True, False),  # brokers are away
        (9, False, False, False),  # it joins again
        (1, True, False, False),  # about to join
    ],
)
def test_a_member_without_heartbeat_that_does_not_join_is_fenced(
    heard, stable, heartbeat_enabled, fenced
):
    # Made here: its times count from now, and a parameter is made long before its test runs.
    coordinator = Coordinator(heard, 9, stable, heartbeat_enabled)

    assert lease_of(coordinator).fenced is fenced
