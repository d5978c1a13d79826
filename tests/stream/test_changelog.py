"""The changelog: round trips, what does not decode, reading to the end."""

from collections import namedtuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition

from stream.changelog import (
    MARKER_KEY,
    ChangelogError,
    Marker,
    Rebuilt,
    SessionRecord,
    decode,
    encode_marker,
    encode_session,
    reaches_further,
    read_to_end,
    tombstone_headers,
)

Message = namedtuple("Message", "topic partition offset key value headers")
NUMBER = st.integers(0, 2**63 - 1)
RECORDS = st.builds(
    SessionRecord,
    *(NUMBER, st.integers(-1, 2**62), st.integers(-1, 2**31), st.text(max_size=30)),
    *(NUMBER, NUMBER, NUMBER, NUMBER, NUMBER),
    *(st.lists(st.text(max_size=20), max_size=20), st.binary(max_size=64), st.binary(max_size=64)),
)


def message(key, value, headers=()):
    return Message("sessions", 2, 9, key, value, list(headers))


@given(record=RECORDS)
def test_a_session_comes_back_as_it_was(record):
    entry = decode(message(b"u1", encode_session(record)))

    assert (entry.partition, entry.user_id) == (2, "u1")
    assert entry.record == record
    assert entry.last_offset == record.last_offset


def test_a_marker_comes_back_as_it_was():
    marker = Marker(next_offset=5, generation=2, version="v", log_time=7, skipped={"ancient": 2})

    assert decode(message(MARKER_KEY, encode_marker(marker))) == marker


def test_a_marker_that_does_not_say_so_was_written_at_least_once():
    value = b'{"next_offset":5,"generation":2,"version":"v","log_time":7}'

    assert decode(message(MARKER_KEY, value)).guarantee == "at_least_once"


def test_a_tombstone_still_says_how_far_its_user_had_come():
    assert decode(message(b"u", None, tombstone_headers(12))).last_offset == 12
    assert decode(message(b"u", None)).last_offset == -1
    assert decode(message(b"u", None, [("last_offset", b"x")])).last_offset == -1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"u", b"{}"),
        (b"u", b""),
        (None, b"x"),
        (b"\xff", b"x"),
        (MARKER_KEY, None),
        (MARKER_KEY, b"{}"),
    ],
)
def test_a_record_that_is_not_ours_is_named(key, value):
    with pytest.raises(ChangelogError, match="sessions/2/9"):
        decode(message(key, value))


def marker_of(next_offset, **fields):
    return Marker(next_offset=next_offset, generation=1, version="", log_time=0, **fields)


def test_the_marker_that_reaches_further_supersedes():
    near, far = marker_of(3), marker_of(4)

    assert reaches_further(near, None)
    assert reaches_further(far, near)
    assert not reaches_further(near, far)


def test_a_marker_of_a_later_rebuild_supersedes_whatever_it_reaches():
    far, begun, ended = (
        marker_of(n, rebuilt=Rebuilt(number, 3, "v")) for n, number in ((9, 1), (-1, 2), (3, 2))
    )

    assert reaches_further(begun, far)
    assert reaches_further(ended, begun)
    assert not reaches_further(far, ended)
    assert begun.unfinished
    assert not ended.unfinished


@pytest.mark.parametrize(
    ("guarantee", "agreeing"),
    [("at_least_once", [4, 5]), ("exactly_once", [5])],
)
def test_a_marker_agrees_with_the_offsets_that_its_guarantee_allows(guarantee, agreeing):
    marker = marker_of(5, guarantee=guarantee)

    assert [offset for offset in (4, 5, 6) if marker.agrees_with(offset)] == agreeing


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_rebuild_that_was_cut_short_agrees_with_no_offset(guarantee):
    marker = marker_of(-1, guarantee=guarantee)

    assert not any(marker.agrees_with(offset) for offset in range(3))


class Reader:
    """A consumer that hands out one slice a poll and may stop making progress."""

    def __init__(self, slices):
        self._slices = slices
        self._positions = {}

    def assign(self, partitions):
        self._positions = dict.fromkeys(partitions, 0)

    def seek_to_beginning(self, *partitions):
        pass

    def poll(self, timeout_ms):
        if not self._slices:
            return {}
        polled = self._slices.pop(0)
        for tp, messages in polled.items():
            self._positions[tp] = messages[-1].offset + 1
        return polled

    def position(self, tp, timeout_ms):
        return self._positions[tp]


A, B = TopicPartition("sessions", 0), TopicPartition("sessions", 1)


def slice_of(tp, *offsets):
    return {tp: [Message(tp.topic, tp.partition, offset, b"k", b"v", []) for offset in offsets]}


def offsets_of(reader, ends, **options):
    options = {"between_slices": lambda: True} | options
    return [(m.partition, m.offset) for m in read_to_end(reader, ends, **options)]


def test_everything_below_the_end_is_read_and_nothing_beyond():
    reader = Reader([slice_of(A, 0, 1), slice_of(B, 0), {}, slice_of(A, 5, 6, 7)])

    assert offsets_of(reader, {A: 7, B: 1}) == [(0, 0), (0, 1), (1, 0), (0, 5), (0, 6)]


def test_an_empty_changelog_is_read_without_a_poll():
    assert offsets_of(None, {A: 0}) == []


def test_reading_ends_when_it_is_given_up():
    reader = Reader([slice_of(A, 0), slice_of(A, 1)])

    assert offsets_of(reader, {A: 9}, between_slices=lambda: False) == [(0, 0)]


def test_no_progress_is_an_error():
    reader = Reader([slice_of(A, 0)])

    with pytest.raises(ChangelogError, match="no progress"):
        offsets_of(reader, {A: 9}, stall_seconds=0.02)
