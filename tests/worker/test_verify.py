"""Verification finds each planted violation: on topics in memory."""

import numpy as np
import pytest

from stream.changelog import MARKER_KEY, Marker, decode, encode_marker, encode_session
from worker.evidence import ExpiredEvidenceError


@pytest.fixture
def served(make_world):
    """A world with answered clicks of three users, a dead letter and a skip."""
    world = make_world()
    for n in range(12):
        world.click(f"u{n % 3}", f"i{n}")
    world.append("clicks", b"u0", b"{", [])
    world.click("u0", "i1", type="hover")
    world.finish()
    return world


def test_a_clean_run_has_no_violation_and_is_counted(served):
    report = served.verify()

    assert report.violations == []
    assert (report.clicks, report.recommendations, report.dead_letters) == (14, 12, 1)
    assert report.skipped == {"unsupported": 1}
    assert (report.sessions, report.states, report.repeated, report.pending) == (3, 3, 0, 0)


def test_a_lost_click_is_found(served):
    del served.logs["recommendations"][5]

    assert "clicks/0/5: lost, it has no outcome" in served.verify().violations


@pytest.mark.parametrize("topic", ["clicks", "recommendations"])
def test_topics_that_lost_their_first_records_prove_nothing(served, topic):
    del served.logs[topic][:3]

    with pytest.raises(ExpiredEvidenceError, match=f"{topic}/0 begins at offset 3"):
        served.verify()


def test_a_wrong_digest_is_found(served):
    record = served.logs["recommendations"][5]
    headers = [(k, b"00000001" if k == "digest" else v) for k, v in record.headers]
    served.replace("recommendations", 5, headers=headers)

    (violation,) = served.verify().violations
    assert violation.startswith("clicks/0/5: answered as click 2 of its user with digest 00000001")


def test_a_second_answer_is_counted_as_a_repeat(served):
    record = served.logs["recommendations"][11]
    served.append("recommendations", record.key, record.value, record.headers)

    report = served.verify()

    assert (report.violations, report.repeated) == ([], 1)


def test_an_answer_to_a_skipped_click_is_found(served):
    record = served.logs["recommendations"][9]
    headers = [(k, b"clicks/0/13" if k == "src" else v) for k, v in record.headers]
    served.append("recommendations", record.key, record.value, headers)

    assert served.verify().violations == ["clicks/0/13: must be skipped, has another outcome"]


def test_a_dead_letter_for_another_reason_is_found(served):
    (letter,) = served.logs["clicks.dlq"]
    headers = [(k, b"range" if k.endswith(".reason") else v) for k, v in letter.headers]
    served.replace("clicks.dlq", 0, headers=headers)

    assert served.verify().violations == ["clicks/0/12: dead for range, must be for malformed"]


def last_session_of(world, user):
    return max(n for n, r in enumerate(world.logs["sessions"]) if r.key == user.encode())


def test_a_session_that_is_not_the_replays_is_found(served):
    offset = last_session_of(served, "u1")
    record = decode(served.logs["sessions"][offset]).record
    other = encode_session(type(record)(*_fields(record, n=record.n + 1)))
    served.replace("sessions", offset, value=other)

    (violation,) = served.verify().violations
    assert violation.startswith("session of 'u1': changelog has")


def test_a_hidden_state_off_by_a_thousandth_is_found(served):
    offset = last_session_of(served, "u1")
    record = decode(served.logs["sessions"][offset]).record
    hidden = np.frombuffer(record.hidden, "<f4").copy()
    hidden[3] += 1e-3
    other = encode_session(type(record)(*_fields(record, hidden=hidden.tobytes())))
    served.replace("sessions", offset, value=other)

    (violation,) = served.verify().violations
    assert violation.startswith("session of 'u1': its state differs by 1.0e-03")


def test_a_session_that_is_missing_or_groundless_is_found(served):
    log = served.logs["sessions"]
    log[:] = [r for r in log if r.key != b"u2"]
    template = log[last_session_of(served, "u1")]
    served.append("sessions", b"u9", template.value, [])

    assert served.verify().violations == [
        "session of 'u2': not in the changelog",
        "session of 'u9': in the changelog, but no click made it",
    ]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"next_offset": 3}, ": 3 is below the commit 14"),
        ({"recommended": 13}, ": counts (14, 13, 1"),
        ({"skipped": {"ancient": 1}}, ": counts (14, 12, 1"),
    ],
)
def test_a_marker_that_disagrees_is_found(served, change, text):
    log = served.logs["sessions"]
    marker = Marker(**{f: getattr(decode(log[-1]), f) for f in Marker.__struct_fields__} | change)
    log[:] = [r for r in log if r.key != MARKER_KEY]
    served.append("sessions", MARKER_KEY, encode_marker(marker), [])

    assert any(text in violation for violation in served.verify().violations)


def test_a_missing_marker_is_found(served):
    log = served.logs["sessions"]
    log[:] = [r for r in log if r.key != MARKER_KEY]

    (violation,) = served.verify().violations
    assert "missing, though 14 is committed" in violation


def test_a_stalled_worker_that_appends_late_is_no_violation(served):
    # Its answers and its marker are of an older generation, and the changelog keeps the newer.
    log = served.logs
    old_marker = next(r for r in log["sessions"] if r.key == MARKER_KEY)
    served.append("sessions", MARKER_KEY, old_marker.value, [])
    for record in log["recommendations"][:3]:
        headers = [(k, b"1" if k == "gen" else v) for k, v in record.headers]
        served.append("recommendations", record.key, record.value, headers)

    report = served.verify()

    assert (report.violations, report.repeated) == ([], 3)


@pytest.mark.parametrize("lost", [(1.0, 0.0), (0.0, 1.0), (0.5, 0.0), (0.0, 0.5)])
def test_a_batch_in_flight_is_no_violation(served, lost):
    for n in range(6):
        served.click(f"u{n % 3}", f"i{n}")
    served.batch(6, lost=lost)

    report = served.verify()

    assert (report.violations, report.pending, report.clicks) == ([], 6, 14)


def _fields(record, **changes):
    return [changes.get(f, getattr(record, f)) for f in record.__struct_fields__]
