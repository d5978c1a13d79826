"""Restore: the newest record wins, tombstones delete, markers and offsets must agree."""

import numpy as np
import pytest

from stream.changelog import (
    MARKER_KEY,
    Entry,
    Marker,
    Rebuilt,
    SessionRecord,
    StateMismatchError,
    encode_marker,
)
from stream.kafka_types import TopicPartition
from stream.positions import Position
from stream.settings import KafkaSettings
from worker import restore as module
from worker.agreement import Standing
from worker.newcomers import Newcomers
from worker.restore import Restorer, place_session
from worker.sessions import EMPTY, Sessions

CLICKS = TopicPartition("clicks", 0)


def entry_of(user="u", offset=5, *, gone=False, **fields):
    values = {
        "schema": 1, "last_offset": offset, "generation": 1,
        "version": "20261123T000000000Z-00000001", "n": 3, "digest": 77, "session_hash": 9,
        "length": 2, "updated_at": 123, "items": ["i1", "i2"],
        "hidden": np.full(16, 0.5, "<f4").tobytes(), "event_hashes": bytes(32 * 8),
    } | fields  # fmt: skip
    record = None if gone else SessionRecord(**values)
    return Entry(0, user, record, offset)


@pytest.fixture
def sessions():
    return Sessions(16, max_live=1000)


@pytest.fixture
def place(sessions, make_version):
    newcomers = Newcomers(16)
    version = make_version()
    return lambda *entries: [place_session(sessions, e, version, newcomers) for e in entries]


def test_a_record_fills_a_slot(sessions, place):
    place(entry_of(items=["i1", "unheard of", "i3"], length=3))

    slot = sessions.find(0, "u")
    assert sessions.ordered(np.array([slot]))[0][0, :4].tolist() == [1, -2, 3, EMPTY]
    assert (sessions.n_S[slot], sessions.digest_S[slot], sessions.offset_S[slot]) == (3, 77, 5)
    assert (sessions.hidden_SH[slot] == 0.5).all()
    assert sessions.version_S[slot] == 1


@pytest.mark.parametrize("fields", [{"version": "another"}, {"hidden": bytes(8)}])
def test_a_state_of_another_version_or_size_is_encoded_again(sessions, place, fields):
    place(entry_of(**fields))

    slot = sessions.find(0, "u")
    assert sessions.version_S[slot] == 0
    assert not sessions.hidden_SH[slot].any()


def test_the_larger_offset_wins_in_any_order(sessions, place):
    place(entry_of(offset=9, n=4), entry_of(offset=5, n=2))

    assert sessions.n_S[sessions.find(0, "u")] == 4
    place(entry_of(offset=9, n=6))
    assert sessions.n_S[sessions.find(0, "u")] == 6


@pytest.mark.parametrize(("offset", "known"), [(4, True), (5, False), (6, False)])
def test_a_tombstone_deletes_what_it_has_seen(sessions, place, offset, known):
    place(entry_of(offset=5), entry_of(offset=offset, gone=True))

    assert (sessions.find(0, "u") >= 0) == known


def test_more_users_than_may_live_are_taken_in(place, sessions):
    sessions.max_live = 2

    place(*(entry_of(user=f"u{n}", offset=n) for n in range(4)))

    assert len(sessions) == 4
    assert sessions.num_free == -2


class Reader:
    """A consumer whose topic holds the given records."""

    def __init__(self, start, isolation="read_committed"):
        self._start = start
        self._isolation = isolation

    def beginning_offsets(self, partitions, timeout_ms):
        return {partition: self._start for partition in partitions}

    def end_offsets(self, partitions, timeout_ms):
        end = 1 if self._isolation == "read_uncommitted" else 0  # a transaction is open
        return {partition: end for partition in partitions}

    def close(self):
        pass


class Rebuilder:
    """Notes what it is to rebuild, and leaves the given markers behind it."""

    def __init__(self, log, *leaves):
        self._log = log
        self._leaves = leaves
        self.rebuilt = []

    def rebuild(self, standing, go_on):
        self.rebuilt.append(standing)
        self._log.extend(self._leaves)


@pytest.fixture
def restore(monkeypatch, make_record):
    def run(position, *markers, go_on=True, unmoved=True, leaves=(), start=0, **options):
        log = list(markers)
        monkeypatch.setattr(
            module.clients,
            "reader",
            lambda *_, isolation="read_committed", **__: Reader(start, isolation),
        )

        def read(reader, ends, *, between_slices):
            assert set(ends.values()) == {1}, "it must wait for the end of an open transaction"
            for marker in log:
                yield make_record(key=MARKER_KEY, value=encode_marker(marker), partition=0)
            between_slices()

        monkeypatch.setattr(module, "read_to_end", read)
        rebuilder = Rebuilder(log, *leaves)
        restorer = Restorer(KafkaSettings(), "sessions", "test", rebuilder=rebuilder, **options)
        ledgers = restorer.restore(
            {CLICKS: position},
            lambda entry: None,
            between_slices=lambda: go_on,
            unmoved=lambda: unmoved,
        )
        return (ledgers[0], rebuilder.rebuilt) if leaves else ledgers and ledgers[0]

    return run


def marker_of(next_offset, **fields):
    values = {"generation": 1, "version": "v", "log_time": 3, "seen": next_offset} | fields
    return Marker(next_offset=next_offset, **values)


def exact(next_offset, **fields):
    return marker_of(next_offset, guarantee="exactly_once", **fields)


@pytest.mark.parametrize(
    ("offset", "markers"),
    [
        (7, [marker_of(9), marker_of(4)]),
        (9, [marker_of(4), exact(9)]),
        (9, [exact(9), marker_of(4)]),
        (7, [exact(7), marker_of(9)]),
    ],
)
def test_the_marker_that_reaches_furthest_is_the_ledgers_in_logs_of_either_guarantee(
    restore, offset, markers
):
    ledger = restore(Position(offset, True, 0, 61), *markers)

    assert (ledger.next_offset, ledger.behind) == (9, offset == 7)
    assert ledger.on_record


def test_a_first_start_has_an_empty_ledger_that_is_still_to_be_written(restore):
    for ledger in (
        restore(Position(4, False, 0, 61)),
        restore(Position(4, False, 0, 61), marker_of(4, seen=0, start=4)),
        restore(Position(4, False, 0, 61), marker_of(9, seen=0, start=9)),
    ):
        assert (ledger.next_offset, ledger.start, ledger.seen) == (4, 4, 0)
        assert not ledger.on_record


def test_without_an_offset_it_goes_on_where_the_sessions_happen_to_end(restore):
    assert restore(Position(6, False, 0, 61), marker_of(6)).seen == 6


def test_giving_up_is_no_disagreement(restore):
    assert restore(Position(7, True, 0, 61), go_on=False) is None


DISAGREEING = [
    (Position(7, True, 0, 61), []),
    (Position(7, True, 0, 61), [marker_of(6)]),
    (Position(7, True, 0, 61), [exact(6)]),
    (Position(7, True, 0, 61), [exact(8)]),
    (Position(7, True, 0, 61), [exact(7), marker_of(-1, rebuilt=Rebuilt(1, 7, "v"))]),
    (Position(0, False, 0, 61), [marker_of(6)]),
    (Position(0, False, 0, 61), [marker_of(-1, seen=0, rebuilt=Rebuilt(1, 7, "v"))]),
]


@pytest.mark.parametrize("on_mismatch", ["halt", "accept", "rebuild"])
def test_nothing_is_judged_by_offsets_that_have_moved_meanwhile(restore, on_mismatch):
    position = Position(7, True, 0, 61)

    assert restore(position, exact(8), unmoved=False, on_mismatch=on_mismatch) is None


@pytest.mark.parametrize(("position", "markers"), DISAGREEING)
def test_a_marker_that_disagrees_is_refused_with_both_ways_out(restore, position, markers):
    with pytest.raises(StateMismatchError, match="clicks/0") as caught:
        restore(position, *markers)

    assert "--accept-mismatch" in str(caught.value)
    assert "--rebuild-from-events" in str(caught.value)


@pytest.mark.parametrize(
    ("marker", "next_offset", "lost"),
    [(exact(9), 9, 0), (exact(4), 7, 3), (marker_of(5), 7, 2)],
)
def test_an_accepted_marker_is_gone_on_from(restore, marker, next_offset, lost):
    ledger = restore(Position(7, True, 0, 61), marker, on_mismatch="accept")

    assert (ledger.next_offset, ledger.lost, ledger.seen) == (next_offset, lost, marker.seen)
    assert (ledger.behind, ledger.on_record) == (next_offset > 7, False)


def test_a_changelog_that_is_gone_is_accepted_as_a_new_beginning(restore):
    ledger = restore(Position(7, True, 0, 61), on_mismatch="accept")

    assert (ledger.next_offset, ledger.start, ledger.lost) == (7, 7, 0)


@pytest.mark.parametrize(("position", "markers"), DISAGREEING)
def test_what_disagrees_is_rebuilt_and_read_again(restore, position, markers):
    number = max((marker.rebuilds for marker in markers), default=0) + 1
    fresh = exact(position.offset, rebuilt=Rebuilt(number, position.offset, "v"))

    ledger, rebuilt = restore(position, *markers, leaves=[fresh], on_mismatch="rebuild")

    assert rebuilt == [Standing(CLICKS, position, markers[-1] if markers else None, 0)]
    assert (ledger.next_offset, ledger.rebuilt) == (position.offset, fresh.rebuilt)


def test_what_agrees_is_not_rebuilt(restore):
    position = Position(7, True, 0, 61)

    assert restore(position, exact(7), leaves=[exact(9)], on_mismatch="rebuild")[1] == []


def test_a_rebuild_that_does_not_help_is_not_repeated(restore):
    with pytest.raises(StateMismatchError):
        restore(Position(7, True, 0, 61), leaves=[exact(6)], on_mismatch="rebuild")


def test_a_gap_in_the_clicks_is_no_disagreement_and_counted(restore):
    ledger = restore(Position(9, True, 5, 61), exact(4))

    assert (ledger.next_offset, ledger.lost, ledger.on_record) == (9, 5, False)


def test_a_changelog_that_lacks_its_first_records_is_refused_until_that_is_accepted(restore):
    position = Position(7, True, 0, 61)
    cut = exact(7, changelog_start=5)

    with pytest.raises(StateMismatchError, match="lacks records before 6"):
        restore(position, cut, start=6)

    assert restore(position, cut, start=5).on_record
    ledger = restore(position, cut, start=6, on_mismatch="accept")
    assert (ledger.changelog_start, ledger.lost, ledger.on_record) == (6, 0, False)


def test_a_first_start_takes_a_changelog_as_it_is(restore):
    assert restore(Position(4, False, 0, 61), start=6).changelog_start == 6


def test_a_rebuild_of_a_group_without_offsets_is_gone_on_from(restore):
    fresh = exact(4, seen=0, exact_from=50, rebuilt=Rebuilt(1, 4, "v"))

    ledger = restore(Position(4, False, 0, 61), fresh)

    assert (ledger.exact_from, ledger.rebuilt, ledger.on_record) == (50, fresh.rebuilt, False)
