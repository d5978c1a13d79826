"""The oracle: what a click must become and what a session must be, one click at a time."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.recommender import Clicks, advance, digest_of
from worker.replay import Clicked, ReplayedSession, expected_outcomes
from worker.sessions import RING, Sessions, hash_of

MINUTE = 60_000
GAP = 30 * MINUTE
DAY = 24 * 60 * MINUTE
NOW_MS = 1_790_000_000_000


def replayed(*clicks, session=None):
    """Apply (item, minute, session id) clicks."""
    session = session or ReplayedSession()
    for item, minute, session_id in clicks:
        event = Clicked("u1", item, hash_of(session_id), True)
        session.apply(session.last_offset + 1, event, NOW_MS + minute * MINUTE, GAP)
    return session


@pytest.mark.parametrize(
    ("clicks", "ring"),
    [
        ([("a", 0, None), ("b", 30, None)], ["a", "b"]),
        ([("a", 0, None), ("b", 31, None)], ["b"]),
        ([("a", 0, None), ("b", -60, None), ("c", 29, None)], ["a", "b", "c"]),
        ([("a", 0, "s"), ("b", 1, "s")], ["a", "b"]),
        ([("a", 0, "s"), ("b", 1, "t")], ["b"]),
        ([("a", 0, "s"), ("b", 1, None), ("c", 2, "s")], ["a", "b", "c"]),
        ([("a", 0, None), ("b", 1, "s")], ["b"]),
        ([(f"i{n}", 0, None) for n in range(25)], [f"i{n}" for n in range(5, 25)]),
    ],
)
def test_a_session_holds_the_items_since_it_began(clicks, ring):
    session = replayed(*clicks)

    assert [*session.ring] == ring
    assert (session.n, session.last_offset) == (len(clicks), len(clicks) - 1)


def test_the_digest_goes_on_through_sessions():
    session = replayed(("a", 0, "s"), ("b", 0, "t"))

    assert session.digest == digest_of(digest_of(0, 0, "a"), 1, "b")
    assert session.length == 1


def test_another_version_encodes_the_ring_and_the_same_goes_on_in_steps():
    session = replayed(("a", 0, None), ("b", 0, None))
    session.reencode("v1")
    assert (session.base, session.steps) == (["a", "b"], [])

    replayed(("c", 0, None), session=session)
    session.reencode("v1")
    assert (session.base, session.steps) == (["a", "b"], ["c"])

    replayed(("d", 99, None), session=session)
    assert (session.base, session.steps) == ([], ["d"])


CLICKS = st.lists(
    st.tuples(
        st.sampled_from(["i1", "i2", "i3", "i39"]),
        st.integers(-40, 90),
        st.sampled_from([None, None, "s", "t"]),
    ),
    min_size=1,
    max_size=40,
)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(clicks=CLICKS)
def test_the_slabs_are_what_the_oracle_says(make_version, clicks):
    session, version, slabs = replayed(*clicks), make_version(), Sessions(16, max_live=1000)
    num = len(clicks)
    columns = Clicks(
        slot_B=np.full(num, slabs.create(0, "u1")),
        code_B=version.bundle.catalogue.rows([item for item, _, _ in clicks]).astype(np.int32),
        time_B=np.array([NOW_MS + minute * MINUTE for _, minute, _ in clicks]),
        offset_B=np.arange(num),
        session_hash_B=np.array([hash_of(session_id) for *_, session_id in clicks], np.uint32),
        repeat_B=np.zeros(num, bool),
        item_ids=[item for item, _, _ in clicks],
    )

    answers = advance(columns, slabs, version, GAP)

    assert (answers.n_B[-1], answers.digest_B[-1]) == (session.n, session.digest)
    assert answers.n_B.tolist() == list(range(1, num + 1))
    codes = [code for code in answers.rings_BR[-1].tolist() if code >= 0]
    assert [version.bundle.catalogue.ids[code] for code in codes] == [*session.ring]
    assert slabs.length_S[columns.slot_B[0]] == session.length
    assert slabs.time_S[columns.slot_B[0]] == session.time_ms
    assert len(codes) <= RING


def outcomes(make_record, *rows):
    """The outcomes of clicks with overridden fields, in log order."""
    records = [make_record(n, **row) for n, row in enumerate(rows)]
    expected = expected_outcomes(records, num_partitions=1, ttl_ms=30 * DAY)
    return [(outcome.outcome, outcome.reason) for outcome in expected.values()]


DUPLICATE, ANSWERED = ("skipped", "duplicate"), ("recommended", "")


@pytest.mark.parametrize(
    ("rows", "last"),
    [
        ([{"event_id": "e"}, {"event_id": "e"}], DUPLICATE),
        ([{"event_id": "e"}, {"event_id": "e", "user": "u2"}], ANSWERED),
        ([{"event_id": "e", "consent": False}, {"event_id": "e"}], ANSWERED),
        ([{"event_id": "e"}, {"event_id": "e", "consent": False}], ANSWERED),
        ([{"event_id": "e", "type": "x"}, {"event_id": "e"}], ANSWERED),
        ([{"event_id": f"e{n}"} for n in range(32)] + [{"event_id": "e0"}], DUPLICATE),
        ([{"event_id": f"e{n}"} for n in range(33)] + [{"event_id": "e0"}], ANSWERED),
        ([{"event_id": "e"}] * 2 + [{"event_id": "e"}], DUPLICATE),
    ],
)
def test_an_event_counts_once_for_users_who_are_remembered(make_record, rows, last):
    assert outcomes(make_record, *rows)[-1] == last


@pytest.mark.parametrize(
    ("row", "outcome"),
    [
        ({}, ANSWERED),
        ({"value": b"{"}, ("dead", "malformed")),
        ({"key": b"u2"}, ("dead", "misrouted")),
        ({"schema": 2}, ("skipped", "unsupported")),
        ({"log_time": NOW_MS - 31 * DAY}, ("skipped", "ancient")),
    ],
)
def test_each_click_has_the_outcome_that_log_time_gives(make_record, row, outcome):
    assert outcomes(make_record, {}, row)[-1] == outcome


def test_a_click_in_an_envelope_is_judged_by_its_data(make_record):
    data = {"user_id": "u1", "item_id": "i9", "timestamp": NOW_MS}
    headers = [("content-type", b"application/cloudevents+json")]
    record = make_record(0, value=json.dumps({"data": data}).encode())._replace(headers=headers)

    expected = expected_outcomes([record], num_partitions=1, ttl_ms=DAY)

    assert expected[0].event.item_id == "i9"
