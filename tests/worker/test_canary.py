"""A version on trial: who gets its lists, what they are, that sessions know nothing of it."""

from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from stream.announcements import on_trial
from stream.messages import Gate, ModelAnnouncement, decode_recommendation
from stream.settings import TopicSettings
from worker.answering import Answering
from worker.canary import Canary
from worker.guard import GuardSettings
from worker.hits import Measured
from worker.ledger import Ledger
from worker.metrics import WorkerMetrics
from worker.outputs import Writer
from worker.settings import WorkerSettings

TOPICS = TopicSettings(partitions=1)
TRIED = "20261123T000000009Z-00000009"
USERS = [f"u{n}" for n in range(40)]


def announced(version, share):
    announcement = ModelAnnouncement(
        name="default", version=version.name, kind="bundle", uri="file:///x",
        manifest_sha256="0" * 64, bytes=1, created_at=1, encoder_version="e",
        trained_through={}, metrics={}, gate=Gate(verdict="accepted"),
    )  # fmt: skip
    return replace(version, announcement=on_trial(announcement, share))


@pytest.fixture
def make_trial(make_version):
    def make(share=0.5, **options):
        options = {"version": TRIED, "seed": 9} | options
        return announced(make_version(9, **options), share)

    return make


class Bench:
    """An answering over one partition that answers click after click."""

    def __init__(self, version, **settings):
        self.settings = WorkerSettings(**settings)
        self.registry = CollectorRegistry()
        writer = Writer(TOPICS, self.settings.ranking, app="app", app_version="1")
        self.answering = Answering(
            *(self.settings, writer, WorkerMetrics(self.registry)),
            num_partitions=1,
            rng=np.random.default_rng(0),
        )
        self.answering.swap(version)
        self.ledgers = {0: Ledger()}
        self.offset = 0

    def answer(self, make_record, clicks):
        """Answer (user, item) clicks in one batch; return user → recommendation."""
        records = [
            make_record(self.offset + n, user=user, item=item)
            for n, (user, item) in enumerate(clicks)
        ]
        self.offset += len(records)
        batch = self.answering.answer(records, self.ledgers, 1)
        self.answering.keep(batch, records, records[-1].timestamp / 1000 + 1)
        self.ledgers.update(batch.ledgers)
        sent = [decode_recommendation(s.value) for s in batch.sends if s.topic == "recommendations"]
        return {recommendation.user_id: recommendation for recommendation in sent}

    def value(self, name, **labels):
        return self.registry.get_sample_value(f"nextclick_{name}", labels) or 0


def items(recommendation):
    return [item.item_id for item in recommendation.items]


def rounds(make_record, bench, num=3):
    """Give every user some clicks; return the last lists."""
    for n in range(num):
        lists = bench.answer(
            make_record, [(user, f"i{n * 50 + i}") for i, user in enumerate(USERS)]
        )
    return lists


def test_the_share_of_users_is_what_was_asked_for_and_others_in_another_trial(make_trial):
    users = [f"user-{n}" for n in range(20_000)]
    one = Canary(make_trial(0.05), GuardSettings(), maker=-1)
    other = Canary(
        make_trial(0.05, version="20261123T000000010Z-0000000a"), GuardSettings(), maker=-1
    )

    picked, others = ({user for user in users if each.picks(user)} for each in (one, other))

    assert len(picked) == pytest.approx(1_000, abs=120)
    assert len(others) == pytest.approx(1_000, abs=120)
    assert len(picked & others) < 100


@pytest.mark.parametrize("exclude", ["none", "current", "session"])
def test_some_users_get_the_lists_that_it_would_give_if_it_served(
    make_version, make_trial, make_record, exclude
):
    trial, settings = make_trial(), {"ranking": {"exclude": exclude}}
    bench, serving, tried = (
        Bench(version, **settings) for version in (make_version(), make_version(), trial)
    )
    bench.answering.try_out(trial)

    mixed, plain, all_tried = (rounds(make_record, each) for each in (bench, serving, tried))

    of_trial = {user for user in USERS if mixed[user].variant == "canary"}
    assert 5 < len(of_trial) < 35
    for user in USERS:
        expected = all_tried if user in of_trial else plain
        assert items(mixed[user]) == items(expected[user])
        assert mixed[user].model.version == expected[user].model.version


def test_sessions_stay_those_of_the_version_that_serves(make_version, make_trial, make_record):
    bench, plain = Bench(make_version()), Bench(make_version())
    bench.answering.try_out(make_trial(1 - 1e-9))

    rounds(make_record, bench)
    rounds(make_record, plain)

    own, expected = bench.answering.sessions, plain.answering.sessions
    assert np.array_equal(own.hidden_SH, expected.hidden_SH)
    assert np.array_equal(own.ring_SR, expected.ring_SR)
    assert np.array_equal(own.version_S, expected.version_S)


def test_when_it_ends_everybody_gets_the_serving_versions_lists(
    make_version, make_trial, make_record
):
    bench = Bench(make_version())
    bench.answering.try_out(make_trial())
    rounds(make_record, bench)

    bench.answering.try_out(None)

    assert {r.variant for r in rounds(make_record, bench).values()} == {None}


def test_hits_count_for_the_arm_that_made_the_list(make_version, make_trial, make_record):
    bench = Bench(make_version())
    bench.answering.try_out(make_trial())
    lists = rounds(make_record, bench)
    before = {
        arm: bench.value("next_click_evaluated_total", arm=arm) for arm in ("serving", "canary")
    }

    bench.answer(make_record, [(user, items(lists[user])[0]) for user in USERS])

    num = sum(r.variant == "canary" for r in lists.values())
    for arm, expected in (("canary", num), ("serving", len(USERS) - num)):
        evaluated = bench.value("next_click_evaluated_total", arm=arm) - before[arm]
        assert evaluated == expected
        assert bench.value("next_click_hits_total", arm=arm) >= expected


@pytest.mark.parametrize("longer", ["serving", "tried"])
def test_rows_that_one_version_does_not_have_are_no_obstacle(
    make_version, make_trial, make_record, longer
):
    short, long = (tuple(f"i{n}" for n in range(size)) for size in (150, 200))
    sizes = (long, short) if longer == "serving" else (short, long)
    bench = Bench(make_version(ids=sizes[0]))
    bench.answering.try_out(make_trial(ids=sizes[1]))

    lists = rounds(make_record, bench, num=4)

    shown = {item for r in lists.values() if r.variant == "canary" for item in items(r)}
    assert shown <= set(sizes[1])
    assert all(len(items(r)) == 20 for r in lists.values())


def test_a_version_whose_rows_mean_other_items_is_not_tried(make_version, make_trial, make_record):
    bench = Bench(make_version())

    for _ in range(3):
        bench.answering.try_out(make_trial(ids=tuple(f"i{n}" for n in reversed(range(200)))))

    assert {r.variant for r in rounds(make_record, bench).values()} == {None}
    assert bench.value("model_loads_total", outcome="refused", reason="rows") == 3


def counted(trial, *measured, **settings):
    canary = Canary(trial, GuardSettings(**settings), maker=-1)
    canary.count([Measured(*one) for one in measured])
    return canary


def test_a_trial_that_loses_hits_is_worse_and_the_verdict_says_by_how_much(make_trial):
    verdict = counted(make_trial(), (-1, 1_600, 160), (4, 30_000, 9_000)).verdict()

    assert verdict.announcement.version == TRIED
    assert str(verdict) == (
        "canary: next-click hit rate 10.00% on 1600 clicks, 30.00% of the serving version's lists "
        "meanwhile"
    )


@pytest.mark.parametrize(
    ("own", "settings"),
    [
        ((-1, 1_600, 480), {}),  # as good
        ((-1, 1_600, 420), {}),  # less by chance, or by too little
        ((-1, 1_400, 14), {}),  # too early to say
        ((-1, 1_600, 16), {"enabled": False}),
        ((-2, 1_600, 16), {}),  # lists of the trial before
    ],
)
def test_nothing_speaks_against_it(make_trial, own, settings):
    assert counted(make_trial(), own, (4, 30_000, 9_000), **settings).verdict() is None


def test_between_two_looks_there_are_some_clicks(make_trial):
    canary = counted(make_trial(), (-1, 1_600, 16), (4, 30_000, 9_000))

    assert canary.verdict() is not None
    canary.count([Measured(-1, 1_000, 10)])
    assert canary.verdict() is None
    canary.count([Measured(-1, 500, 5)])
    assert canary.verdict() is not None
