"""Where partitions start: never reset in silence."""

from unittest.mock import create_autospec

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError

from stream.positions import (
    OffsetGapError,
    Position,
    as_commit,
    end_offsets,
    first_offsets,
    starting_positions,
)

TP = TopicPartition("clicks", 1)


@pytest.fixture
def positions():
    def run(*, committed, first=0, end=100, start_from="earliest", on_gap="halt"):
        consumer = create_autospec(KafkaConsumer, spec_set=True, instance=True)
        consumer.committed.return_value = committed
        consumer.beginning_offsets.return_value = {TP: first}
        consumer.end_offsets.return_value = {TP: end}
        found = starting_positions(consumer, [TP], start_from=start_from, on_gap=on_gap)
        return found[TP]

    return run


def test_a_committed_offset_is_where_it_goes_on(positions):
    assert positions(committed=7) == Position(7, committed=True, gap=0, end=100)
    assert positions(committed=100) == Position(100, committed=True, gap=0, end=100)


@pytest.mark.parametrize(("start_from", "offset"), [("earliest", 5), ("latest", 100)])
def test_a_first_start_is_where_the_policy_says(positions, start_from, offset):
    found = positions(committed=None, first=5, start_from=start_from)

    assert found == Position(offset, committed=False, gap=0, end=100)


def test_deleted_clicks_halt_or_are_counted(positions):
    with pytest.raises(OffsetGapError, match=r"5 clicks of clicks/1 .* worker.on_gap"):
        positions(committed=7, first=12)

    assert positions(committed=7, first=12, on_gap="continue") == Position(12, True, 5, 100)


@pytest.mark.parametrize("on_gap", ["halt", "continue"])
def test_a_log_that_ends_below_the_commit_is_another_log(positions, on_gap):
    with pytest.raises(OffsetGapError, match="ends at 3, below the committed 7"):
        positions(committed=7, end=3, on_gap=on_gap)


class Client:
    """Answers like the client, once it knows the leaders; several partitions are left out."""

    def __init__(self, *, updates_needed=0):
        self.updates = 0
        self._needed = updates_needed
        self._cluster = self

    def request_update(self):
        self.updates += 1

    def beginning_offsets(self, partitions, timeout_ms):
        if self.updates < self._needed:
            raise KafkaTimeoutError
        return {tp: 10 * tp.partition for tp in partitions if len(partitions) == 1}

    end_offsets = beginning_offsets


@pytest.mark.parametrize("edges", [first_offsets, end_offsets])
def test_the_edges_of_each_log_are_asked_one_by_one(edges):
    partitions = [TopicPartition("clicks", n) for n in (1, 2)]

    assert list(edges(Client(), partitions).values()) == [10, 20]


@pytest.mark.parametrize("edges", [first_offsets, end_offsets])
def test_a_leader_that_moved_is_looked_for_before_the_next_try(edges):
    client = Client(updates_needed=3)

    assert edges(client, [TP]) == {TP: 10}
    assert client.updates == 3


def test_the_search_for_a_leader_ends_with_the_time():
    with pytest.raises(KafkaTimeoutError):
        end_offsets(Client(updates_needed=1_000_000), [TP], timeout_ms=10)


def test_offsets_take_the_clients_form():
    assert as_commit({TP: 3})[TP].offset == 3
