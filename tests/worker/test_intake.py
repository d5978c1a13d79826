"""From records to columns: every record has one verdict, every click its seat."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.validation import partition_of
from worker.intake import judge_records, seat
from worker.ledger import Ledger
from worker.replay import expected_outcomes
from worker.sessions import Sessions

NOW_MS = 1_790_000_000_000
DAY_MS = 86_400_000
PARTITIONS = 4
HOME = partition_of(b"u1", PARTITIONS)
AWAY = (HOME + 1) % PARTITIONS


@pytest.fixture
def sessions():
    return Sessions(2, max_live=1000)


@pytest.fixture
def make(make_record):
    """Make a record of a topic of four partitions."""
    return lambda *offset, **fields: make_record(*offset, num_partitions=PARTITIONS, **fields)


def judged_by(sessions, records, ledgers=None):
    ledgers = ledgers or {number: Ledger() for number in range(PARTITIONS)}
    return judge_records(records, ledgers, sessions, num_partitions=PARTITIONS, ttl_ms=30 * DAY_MS)


def outcome_of(intake):
    """The kind and the reason of an intake's only record."""
    found = [("recommended", "") for _ in intake.judged]
    found += [("dead", dead.reason) for dead in intake.dead]
    found += [("skipped", reason) for _, reason in intake.skipped]
    (only,) = found
    return only


def cloud_event(**data):
    click = {"user_id": "u1", "item_id": "i1", "timestamp": NOW_MS} | data
    return json.dumps({"specversion": "1.0", "data": click}).encode()


INPUTS = {
    "a click": ({}, "recommended", ""),
    "no key": ({"key": None}, "recommended", ""),
    "no key, elsewhere": ({"key": None, "partition": AWAY}, "dead", "misrouted"),
    "elsewhere": ({"partition": AWAY}, "dead", "misrouted"),
    "another's key": ({"key": b"u2"}, "dead", "misrouted"),
    "an empty key": ({"key": b"", "user": "u1", "value": b"{"}, "dead", "malformed"),
    "no value": ({"value": b""}, "dead", "malformed"),
    "half a value": ({"value": b'{"user_id": '}, "dead", "malformed"),
    "no item": ({"value": b'{"user_id": "u1", "timestamp": 1}'}, "dead", "missing"),
    "infinity": ({"timestamp": float("inf")}, "dead", "hostile"),
    "nesting": ({"value": b"[" * 9000}, "dead", "hostile"),
    "digits": ({"timestamp": 10**19}, "dead", "range"),
    "a list as user": ({"user_id": ["u1"]}, "dead", "type"),
    "an empty item": ({"item": ""}, "dead", "id"),
    "UTF-16": ({"value": "{}".encode("utf-16")}, "dead", "encoding"),
    "20 KB": ({"context": {"x": "y" * 20_000}}, "dead", "oversize"),
    "a month and a minute ago": (
        {"timestamp": NOW_MS - 30 * DAY_MS - 60_000}, "skipped", "ancient",
    ),
    "a month ago": ({"timestamp": NOW_MS - 30 * DAY_MS}, "recommended", ""),
    "a purchase": ({"type": "purchase"}, "skipped", "unsupported"),
    "a newer schema": ({"schema": 2}, "skipped", "unsupported"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "kind", "reason"), INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("known", [False, True], ids=["new user", "known user"])
def test_each_input_has_its_verdict(make, sessions, known, fields, kind, reason):
    if known:
        sessions.create(HOME, "u1")

    record = make(0, **fields)

    assert outcome_of(judged_by(sessions, [record])) == (kind, reason)
    replayed = expected_outcomes([record], num_partitions=PARTITIONS, ttl_ms=30 * DAY_MS)
    assert (replayed[0].outcome, replayed[0].reason) == (kind, reason)


@pytest.mark.parametrize(
    ("stated", "judged"),
    [
        (NOW_MS, NOW_MS),
        (NOW_MS + 300_000, NOW_MS + 300_000),
        (NOW_MS + 300_001, NOW_MS),
        (NOW_MS // 1000, NOW_MS),
        (NOW_MS * 1000, NOW_MS),
    ],
)
def test_a_time_is_in_milliseconds_and_not_far_ahead_of_the_log(make, sessions, stated, judged):
    intake = judged_by(sessions, [make(0, timestamp=stated)])

    assert intake.judged[0].time_ms == judged


def test_log_time_never_goes_back_and_each_partition_has_its_own(make, sessions):
    ledgers = {number: Ledger() for number in range(PARTITIONS)}
    records = [
        make(0, log_time=NOW_MS),
        make(1, log_time=NOW_MS - 60 * DAY_MS, timestamp=NOW_MS - 60 * DAY_MS),
        make(0, partition=AWAY, log_time=5),
    ]

    intake = judged_by(sessions, records, ledgers)

    assert [reason for _, reason in intake.skipped] == ["ancient"]
    assert (ledgers[HOME].log_time, ledgers[AWAY].log_time) == (NOW_MS, 5)


def test_an_envelope_is_opened_and_a_broken_one_is_dead(make, sessions):
    structured = [("content-type", b"application/cloudevents+json; charset=utf-8")]
    whole, broken = make(0, value=cloud_event(item_id="i9")), make(0, value=b'{"data": ')

    intake = judged_by(sessions, [whole._replace(headers=structured)])

    assert intake.judged[0].event.item_id == "i9"
    assert outcome_of(judged_by(sessions, [broken._replace(headers=structured)]))[0] == "dead"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "user_id": st.sampled_from(["u1", "u2", "é"]) | JSON,
        "item_id": st.sampled_from(["i1", "i2"]) | JSON,
        "timestamp": st.sampled_from([NOW_MS, 0, -1, "2026-11-23T10:00:00Z"]) | JSON,
        "event_id": st.sampled_from(["e1", "e2"]) | JSON,
        "session_id": JSON,
        "consent": st.booleans() | JSON,
    },
)
VALUE = st.binary(max_size=30) | FIELDS.map(
    lambda fields: json.dumps(
        {"user_id": "u1", "item_id": "i1", "timestamp": NOW_MS} | fields
    ).encode()
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    values=st.lists(st.tuples(VALUE, st.sampled_from([b"u1", b"u2", None, b"\xff"])), max_size=12),
    cut=st.integers(0, 12),
)
def test_any_records_have_one_outcome_each_that_of_a_replay(make, values, cut):
    records = [make(n, value=value, key=key) for n, (value, key) in enumerate(values)]
    sessions = Sessions(2, max_live=1000)
    ledgers = {number: Ledger() for number in range(PARTITIONS)}
    found = {}

    for batch in (records[:cut], records[cut:]):
        intake = judged_by(sessions, batch, ledgers)
        seated = seat(intake, sessions, ledgers, lambda item: 1)
        sessions.offset_S[seated.clicks.slot_B] = seated.clicks.offset_B
        found |= {j.record.offset: ("recommended", "", j.time_ms) for j in seated.judged}
        found |= {d.record.offset: ("dead", d.reason, 0) for d in intake.dead}
        found |= {r.offset: ("skipped", reason, 0) for r, reason in intake.skipped}
        assert not found.keys() - {r.offset for r in records}

    expected = expected_outcomes(records, num_partitions=PARTITIONS, ttl_ms=30 * DAY_MS)
    assert found == {
        offset: (e.outcome, e.reason, e.time_ms if e.outcome == "recommended" else 0)
        for offset, e in expected.items()
    }


@pytest.fixture
def ledgers():
    return {number: Ledger() for number in range(PARTITIONS)}


@pytest.fixture
def seated(sessions, ledgers):
    """Judge and seat records; the code of an item is its number."""

    def run(*records):
        intake = judged_by(sessions, records, ledgers)
        return intake, seat(intake, sessions, ledgers, lambda item: int(item[1:]))

    return run


def test_the_clicks_of_one_user_share_a_slot_in_log_order(seated, make, sessions):
    _, seats = seated(*(make(n, item=f"i{n}", session_id=f"s{n % 2}") for n in range(4)))

    slot = sessions.find(HOME, "u1")
    assert seats.clicks.slot_B.tolist() == [slot] * 4
    assert seats.clicks.code_B.tolist() == [0, 1, 2, 3]
    assert seats.clicks.offset_B.tolist() == [0, 1, 2, 3]
    hashes = seats.clicks.session_hash_B.tolist()
    assert hashes[0] == hashes[2] != hashes[1] == hashes[3]
    assert (seats.owners, seats.undo.created) == ({slot: (HOME, "u1")}, [(HOME, "u1")])


def test_each_click_without_consent_sits_alone_and_is_nobodys(seated, make, sessions):
    _, seats = seated(make(0), *(make(n, consent=False, event_id="e") for n in (1, 2)))

    assert len(set(seats.clicks.slot_B.tolist())) == 3
    assert sorted(seats.clicks.slot_B.tolist()[1:]) == sorted(seats.scratch)
    assert list(seats.owners.values()) == [(HOME, "u1")]
    assert len(sessions) == 1


def test_a_click_is_a_repeat_by_the_ledger_or_by_its_session(seated, make, sessions, ledgers):
    sessions.offset_S[sessions.create(HOME, "u1")] = 5
    ledgers[HOME].next_offset = 4

    _, seats = seated(make(2), make(5), make(6), make(3, consent=False))

    assert seats.clicks.repeat_B.tolist() == [True, True, False, False]


def test_a_session_behind_the_marker_gets_the_clicks_that_a_crash_lost(
    seated, make, sessions, ledgers
):
    slot = sessions.create(HOME, "u1")
    sessions.offset_S[slot], sessions.n_S[slot] = 2, 1
    for ledger in ledgers.values():
        ledger.next_offset = 10

    _, seats = seated(make(2), make(7), make(8, user="evicted"))

    assert seats.clicks.repeat_B.tolist() == [True, False, True]


def test_a_duplicate_leaves_the_clicks_and_its_seat(seated, make):
    intake, seats = seated(make(0, event_id="e"), make(1), make(2, event_id="e", item="i7"))

    assert [(record.offset, reason) for record, reason in intake.skipped] == [(2, "duplicate")]
    assert seats.clicks.offset_B.tolist() == [0, 1]
    assert len(seats.judged) == len(seats.clicks) == 2


def test_undoing_a_batch_forgets_its_users_and_its_event_ids(seated, make, sessions):
    _, first = seated(make(0, event_id="e"))
    sessions.roll_back(first.undo)

    intake, again = seated(make(0, event_id="e"))

    assert (len(again.clicks), intake.skipped) == (1, [])


def crowd(sessions, count):
    """Fill the slabs with users of another partition, the first one idle for longest."""
    for n in range(count):
        slot = sessions.create(9, f"c{n}")
        sessions.time_S[slot], sessions.offset_S[slot] = n, 100 + n


def test_who_was_idle_for_longest_makes_room_but_nobody_of_the_batch(seated, make, sessions):
    sessions.time_S[sessions.create(HOME, "u1")] = -1
    crowd(sessions, 999)

    _, seats = seated(make(0), make(0, user="u2"))

    assert sorted(seats.evicted) == [(9, f"c{n}", 100 + n) for n in range(10)]
    assert sessions.find(9, "c0") == -1
    assert sessions.find(HOME, "u1") >= 0
    assert len(sessions) == 991


def test_nobody_is_evicted_for_clicks_without_consent_or_of_known_users(seated, make, sessions):
    sessions.create(HOME, "u1")
    crowd(sessions, 999)

    _, seats = seated(make(0), make(1, user="u2", consent=False))

    assert seats.evicted == []


def test_a_batch_of_more_users_than_may_live_is_seated(seated, make, sessions):
    crowd(sessions, 3)

    _, seats = seated(*(make(n, user=f"v{n}") for n in range(1200)))

    assert len(sessions) == len(set(seats.clicks.slot_B.tolist())) == 1200
    assert {user for _, user, _ in seats.evicted} == {"c0", "c1", "c2"}
