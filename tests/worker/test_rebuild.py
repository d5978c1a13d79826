"""A rebuild: the sessions that clicks give are those that answering them gave."""

from types import SimpleNamespace

import pytest

from stream import clients
from stream.batch import Outcome
from stream.changelog import MARKER_KEY, Marker, StateMismatchError, decode
from stream.kafka_types import TopicPartition
from stream.positions import Position
from stream.settings import KafkaSettings, TopicSettings
from worker import rebuild
from worker.agreement import Standing
from worker.rebuild import Rebuilder
from worker.restore import GivenUpError, Restorer
from worker.settings import SessionSettings

CLICKS = TopicPartition("clicks", 0)
STANDING = Standing(CLICKS, Position(61, True, 0, 61), None, 0)
MEMBER = SimpleNamespace(generation_id=7)
TOPICS = TopicSettings(partitions=1)


class Committer:
    """Appends to the logs of a world; `failures` are batches of which it keeps that share."""

    def __init__(self, world):
        self._world = world
        self.failures = []
        self.renewals = 0
        self.offsets = []

    def commit(self, sends, before, after, member):
        share = self.failures.pop(0) if self.failures else None
        kept = sends if share is None else sends[: round(share * len(sends))]
        for send in kept:
            self._world.append(send.topic, send.key, send.value, send.headers)
        self.renewals += share is not None
        self.offsets.append(after)
        return Outcome.KEPT


@pytest.fixture
def make_rebuilder(monkeypatch):
    monkeypatch.setattr(rebuild, "_SLICE", 4)

    def make(world, *, known=True, guarantee="exactly_once"):
        monkeypatch.setattr(clients, "reader", lambda *_, **__: world.reader())
        monkeypatch.setattr(rebuild, "membership", lambda _: MEMBER if known else None)
        return Rebuilder(
            consumer=None,
            committer=Committer(world),
            answering=world.worker,
            kafka=KafkaSettings(),
            topics=TOPICS,
            settings=SessionSettings(max_live=1000),
            guarantee=guarantee,
        )

    return make


@pytest.fixture
def served(make_world):
    """A world of answered clicks: long sessions, newcomers, events, no consent, dead ones."""
    world = make_world()
    for n in range(60):
        fields = {"event_id": f"e{n // 4}"} if n % 10 < 4 else {}
        item = "new0" if n % 7 == 0 else f"i{n % 40}"
        world.click(f"u{n % 2 and n % 5}", item, consent=n % 11 > 0, **fields)
    world.append("clicks", b"u0", b"{", [])
    world.finish()
    return world


def restored(world, rebuilder, *, committed=None, policy="rebuild"):
    """Restore as a worker that starts; returns the ledger."""
    world.worker.sessions.drop(0)
    position = Position(world.committed if committed is None else committed, True, 0, 61)
    restorer = Restorer(
        KafkaSettings(), "sessions", "test", on_mismatch=policy, rebuilder=rebuilder
    )
    ledgers = restorer.restore(
        {CLICKS: position},
        world.worker.place,
        between_slices=lambda: True,
        unmoved=lambda: True,
    )
    return ledgers[0]


def markers(world):
    return [m for m in map(decode, world.logs["sessions"]) if isinstance(m, Marker)]


def test_a_deleted_changelog_comes_back_from_the_clicks(served, make_rebuilder):
    before = markers(served)[-1]
    served.logs["sessions"].clear()
    rebuilder = make_rebuilder(served)

    ledger = restored(served, rebuilder)

    assert (ledger.seen, ledger.recommended, ledger.dead, ledger.skipped) == (
        *(before.seen, before.recommended, before.dead),
        before.skipped,
    )
    report = served.verify()
    assert report.violations == []
    assert report.sessions == report.states > 0
    assert set(map(str, rebuilder.committer.offsets)) == {str({CLICKS: served.committed})}


def test_serving_goes_on_after_a_rebuild_under_another_version(served, make_rebuilder):
    served.logs["sessions"].clear()
    served.swap()
    served.ledgers = {0: restored(served, make_rebuilder(served))}
    served.generation += 1
    for n in range(30):
        served.click(f"u{n % 4}", f"i{n}")
        if n == 15:
            served.batch(9)
            served.swap()

    report = served.finish()

    assert report.violations == []
    assert report.sessions == report.states > 0


def test_sessions_that_were_ahead_are_set_back(served, make_rebuilder):
    rebuilder = make_rebuilder(served)
    served.committed = 20
    _as_exactly_once(served)

    served.ledgers = {0: restored(served, rebuilder)}

    assert markers(served)[-1].next_offset == 20
    sessions = served.worker.sessions
    assert max(sessions.offset_S[slot] for slot in sessions.users(0).values()) < 20
    assert served.ledgers[0].exact_from == 61
    served.generation += 1
    report = served.finish()
    assert report.violations == []
    assert report.repeated > 30


def test_a_user_whom_the_clicks_do_not_know_is_deleted(served, make_rebuilder):
    record = next(r for r in served.logs["sessions"] if r.key == b"u2")
    served.append("sessions", b"stranger", record.value, [])
    served.logs["sessions"] = [r for r in served.logs["sessions"] if r.key != MARKER_KEY]

    restored(served, make_rebuilder(served))

    assert served.worker.sessions.find(0, "stranger") == -1
    assert served.verify().violations == []


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_rebuild_that_is_cut_short_starts_over(served, make_rebuilder, guarantee):
    served.logs["sessions"].clear()
    whole = make_rebuilder(served, guarantee=guarantee)
    restored(served, whole)
    written = served.logs["sessions"]
    for length in range(1, len(written)):
        served.logs["sessions"] = written[:length]

        with pytest.raises(StateMismatchError):
            restored(served, None, policy="halt")

    restored(served, whole)
    assert [m.rebuilds for m in markers(served)] == [1, 2, 2]
    assert served.verify().violations == []


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_batch_that_failed_is_sent_again(served, make_rebuilder, share):
    served.logs["sessions"].clear()
    rebuilder = make_rebuilder(served)
    rebuilder.committer.failures = [share, share]

    restored(served, rebuilder)

    assert served.verify().violations == []


def test_brokers_that_fail_for_ever_make_it_give_up(served, make_rebuilder):
    rebuilder = make_rebuilder(served)
    rebuilder.committer.failures = [0.0] * 100

    with pytest.raises(GivenUpError):
        rebuilder.rebuild(STANDING, lambda: True)

    assert len(rebuilder.committer.failures) >= 90


def test_a_member_that_the_group_does_not_know_writes_nothing(served, make_rebuilder):
    rebuilder = make_rebuilder(served, known=False)
    log = list(served.logs["sessions"])

    with pytest.raises(GivenUpError):
        rebuilder.rebuild(STANDING, lambda: True)

    assert served.logs["sessions"] == log


def test_clicks_that_retention_removed_are_missing_from_the_sessions(served, make_rebuilder):
    served.logs["sessions"].clear()
    del served.logs["clicks"][:50]

    ledger = restored(served, make_rebuilder(served))

    assert (ledger.start, ledger.next_offset, ledger.seen) == (50, 61, 11)


def _as_exactly_once(world):
    log = world.logs["sessions"]
    for n, record in enumerate(log):
        if record.key == MARKER_KEY:
            value = record.value.replace(b'"at_least_once"', b'"exactly_once"')
            log[n] = record._replace(value=value)
