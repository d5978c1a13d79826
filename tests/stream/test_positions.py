"""Where partitions start: never reset in silence."""

import pytest
from kafka import KafkaConsumer, TopicPartition

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
def positions(mocker_of):
    def run(*, committed, first=0, end=100, start_from="earliest", on_gap="halt"):
        consumer = mocker_of(KafkaConsumer)
        consumer.committed.return_value = committed
        consumer.beginning_offsets.return_value = {TP: first}
        consumer.end_offsets.return_value = {TP: end}
        found = starting_positions(consumer, [TP], start_from=start_from, on_gap=on_gap)
        return found[TP]

    return run


@pytest.fixture
def mocker_of():
    from unittest.mock import create_autospec

    return lambda kind: create_autospec(kind, spec_set=True, instance=True)


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


class Forgetful:
    """Answers like the client: partitions without a known leader are left out of several."""

    def beginning_offsets(self, partitions, timeout_ms):
        return {tp: 10 * tp.partition for tp in partitions if len(partitions) == 1}

    end_offsets = beginning_offsets


def test_the_edges_of_each_log_are_asked_one_by_one():
    partitions = [TopicPartition("clicks", n) for n in (1, 2)]

    for edges in (first_offsets, end_offsets):
        assert list(edges(Forgetful(), partitions).values()) == [10, 20]


def test_offsets_take_the_clients_form():
    assert as_commit({TP: 3})[TP].offset == 3
