"""The reader's rule for at-least-once output: any repeats of a log give back the log."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.decoding import DecodeError
from stream.deduplication import Deduplicator
from stream.headers import RecommendationHeaders


def headers(offset, partition=0, topic="clicks"):
    return [("gen", b"1"), ("src", f"{topic}/{partition}/{offset}".encode()), ("n", b"1")]


@st.composite
def repeated_logs(draw):
    """An output of several partitions in which a worker went back now and then, and its origin."""
    offsets = st.lists(st.integers(0, 60), unique=True, max_size=12).map(sorted)
    original = draw(st.dictionaries(st.integers(0, 3), offsets, max_size=4))
    written = {}
    for partition, log in original.items():
        copies = []
        done = 0
        while done < len(log):
            begin = draw(st.integers(0, done))
            done = max(done, draw(st.integers(begin + 1, len(log))))
            copies += [(partition, offset) for offset in log[begin:done]]
        written[partition] = copies
    # Partitions reach a reader interleaved in any way, each in its own order.
    turns = draw(st.permutations([p for p, copies in written.items() for _ in copies]))
    queues = {partition: iter(copies) for partition, copies in written.items()}
    return original, [next(queues[partition]) for partition in turns]


@given(logs=repeated_logs(), restart=st.integers(0, 200))
def test_any_repeats_give_back_the_original(logs, restart):
    original, written = logs
    deduplicator = Deduplicator()
    passed = {partition: [] for partition in original}

    for number, (partition, offset) in enumerate(written):
        if number == restart:  # of the reader, which kept the state with its results
            deduplicator = Deduplicator(json.loads(json.dumps(deduplicator.state())))
        if deduplicator.is_new(headers(offset, partition)):
            passed[partition].append(offset)

    assert passed == original
    assert len(deduplicator.state()) <= len(original)


def test_the_headers_of_a_worker_are_understood_whichever_client_read_them():
    made = RecommendationHeaders(
        "my.clicks", 3, app="a", generation=1, model_version="v", time_ms=0
    ).recommendation_headers(7, n=1, digest=2, replayed=True)
    deduplicator = Deduplicator()

    assert deduplicator.is_new(made)
    assert not deduplicator.is_new(tuple(made))
    assert deduplicator.state() == {"my.clicks/3": 7}


def test_offsets_of_different_topics_and_partitions_have_nothing_to_do_with_each_other():
    deduplicator = Deduplicator({"clicks/0": 100})

    assert deduplicator.is_new(headers(5, partition=1))
    assert deduplicator.is_new(headers(5, topic="other"))
    assert not deduplicator.is_new(headers(100))
    assert deduplicator.is_new(headers(101))


def test_a_state_is_a_copy_and_goes_back_to_where_it_was_taken():
    deduplicator = Deduplicator()
    deduplicator.is_new(headers(1))
    state = deduplicator.state()
    deduplicator.is_new(headers(2))

    deduplicator.restore(state)

    assert state == {"clicks/0": 1}
    assert deduplicator.is_new(headers(2))


@pytest.mark.parametrize(
    "found",
    [None, [], [("gen", b"1")], [("src", None)], [("src", b"")], [("src", b"clicks/0")],
     [("src", b"clicks/0/-1")], [("src", b"clicks/0/1_0")], [("src", b"7")],
     [("src", b"clicks/0/" + b"9" * 5_000)],
     [("src", "clicks/0/\u0663".encode())]],
)  # fmt: skip
def test_a_record_that_names_no_click_is_refused(found):
    with pytest.raises(DecodeError):
        Deduplicator().is_new(found)
