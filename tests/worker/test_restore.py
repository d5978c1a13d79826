"""Restore: the newest record wins, tombstones delete, markers and offsets must agree."""

import numpy as np
import pytest

from stream.changelog import (
    MARKER_KEY,
    Entry,
    Marker,
    SessionRecord,
    StateMismatchError,
    encode_marker,
)
from stream.kafka_types import TopicPartition
from stream.positions import Position
from stream.settings import KafkaSettings
from worker import restore as module
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

    def end_offsets(self, partitions, timeout_ms):
        return {partition: 1 for partition in partitions}

    def close(self):
        pass


@pytest.fixture
def restore(monkeypatch, make_record):
    def run(position, *markers, go_on=True):
        monkeypatch.setattr(module.clients, "reader", lambda *_, **__: Reader())

        def read(reader, ends, *, between_slices):
            for marker in markers:
                yield make_record(key=MARKER_KEY, value=encode_marker(marker), partition=0)
            between_slices()

        monkeypatch.setattr(module, "read_to_end", read)
        restorer = Restorer(KafkaSettings(), "sessions", "test")
        return restorer.restore(
            {CLICKS: position}, lambda entry: None, between_slices=lambda: go_on
        )

    return run


def marker_of(next_offset, **fields):
    values = {"generation": 1, "version": "v", "log_time": 3, "seen": next_offset} | fields
    return Marker(next_offset=next_offset, **values)


def test_the_marker_that_reaches_furthest_is_the_ledgers(restore):
    ledgers = restore(Position(7, True, 0), marker_of(9), marker_of(4))

    assert ledgers[0].next_offset == 9


def test_a_first_start_has_an_empty_ledger(restore):
    assert restore(Position(4, False, 0))[0].next_offset == 4
    assert restore(Position(4, False, 0), marker_of(4, seen=0))[0].seen == 0


def test_giving_up_is_no_disagreement(restore):
    assert restore(Position(7, True, 0), go_on=False) is None


@pytest.mark.parametrize(
    ("position", "markers"),
    [
        (Position(7, True, 0), []),
        (Position(7, True, 0), [marker_of(6)]),
        (Position(0, False, 0), [marker_of(6)]),
    ],
)
def test_a_marker_below_the_commit_or_without_one_is_refused(restore, position, markers):
    with pytest.raises(StateMismatchError, match="clicks/0"):
        restore(position, *markers)


def test_a_gap_in_the_clicks_is_no_disagreement(restore):
    assert restore(Position(9, True, 5), marker_of(4))[0].next_offset == 4
