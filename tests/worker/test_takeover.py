"""Taking partitions over while others are live: what is paused, sought, resumed and marked."""

from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError
from kafka.structs import ConsumerGroupMetadata
from prometheus_client import CollectorRegistry

from stream.assignment import Assignment
from stream.batch import Outcome
from stream.changelog import MARKER_KEY
from stream.monitor import Health
from stream.settings import TopicSettings
from worker.ledger import Ledger
from worker.metrics import WorkerMetrics
from worker.partitions import Partitions
from worker.restore import Restorer
from worker.sessions import Sessions
from worker.settings import WorkerSettings
from worker.takeover import Takeover

LIVE, NEW = TopicPartition("clicks", 0), TopicPartition("clicks", 1)
MEMBER = ConsumerGroupMetadata("app", 3, "m", None)
NEXT = 40


class Committer:
    """Notes what is committed, and answers with `outcome`."""

    renewals = 0

    def __init__(self):
        self.outcome = Outcome.KEPT
        self.commits = []

    def commit(self, sends, before, after, member):
        self.commits.append((list(sends), before, after, member))
        return self.outcome

    def close(self):
        pass


@pytest.fixture
def taking():
    """A takeover of NEW by a worker that serves LIVE; nothing has been committed of NEW."""
    consumer = create_autospec(KafkaConsumer, spec_set=True, instance=True)
    consumer.assignment.return_value = {LIVE, NEW}
    consumer.committed.return_value = None
    consumer.beginning_offsets.return_value = {NEW: 0}
    consumer.end_offsets.return_value = {NEW: 9}
    restorer = create_autospec(Restorer, spec_set=True, instance=True)
    restorer.restore.return_value = {NEW.partition: Ledger.begun_at(0)}
    committer = Committer()
    metrics = WorkerMetrics(CollectorRegistry())
    assignment = Assignment(consumer)
    assignment.live, assignment.new = {LIVE}, {NEW}
    partitions = Partitions(Sessions(4, max_live=100), metrics)
    partitions.take(LIVE, NEXT, Ledger())
    takeover = Takeover(
        consumer=consumer,
        restorer=restorer,
        committer=committer,
        settings=WorkerSettings(),
        topics=TopicSettings(partitions=2),
        guarantee="exactly_once",
        health=Health(("model", "group", "sessions")),
        metrics=metrics,
    )

    def run():
        takeover.run(assignment, partitions, lambda entry: None, MEMBER)
        return assignment.live

    return SimpleNamespace(
        run=run,
        consumer=consumer,
        restorer=restorer,
        committer=committer,
        assignment=assignment,
        partitions=partitions,
    )


def test_every_partition_is_paused_before_the_first_slice_is_read(taking):
    def restore(positions, place, *, between_slices, unmoved):
        (paused,) = taking.consumer.pause.call_args_list
        assert set(paused.args) == {LIVE, NEW}
        assert between_slices()
        return {NEW.partition: Ledger.begun_at(0)}

    taking.restorer.restore.side_effect = restore

    assert taking.run() == {LIVE, NEW}


@pytest.mark.matrix("F51")
@pytest.mark.parametrize("given_up", [True, False])
def test_live_partitions_go_on_exactly_where_they_were(taking, given_up):
    if given_up:
        taking.restorer.restore.return_value = None

    taking.run()

    taking.consumer.seek.assert_any_call(LIVE, NEXT)
    (resumed,) = taking.consumer.resume.call_args_list
    assert set(resumed.args) == ({LIVE} if given_up else {LIVE, NEW})


def test_a_first_start_is_marked_in_the_changelog_and_committed_at_once(taking):
    taking.run()

    ((sends, before, after, member),) = taking.committer.commits
    assert [(send.partition, send.key) for send in sends] == [(NEW.partition, MARKER_KEY)]
    assert (before, after, member) == ({}, {NEW: 0}, MEMBER)


@pytest.mark.parametrize("outcome", [Outcome.ROLLED_BACK, Outcome.UNKNOWN])
def test_a_first_start_that_was_not_marked_begins_again(taking, outcome):
    taking.committer.outcome = outcome

    assert taking.run() == {LIVE}
    assert taking.assignment.new == {NEW}


@pytest.mark.matrix("F51")
def test_a_partition_that_is_revoked_meanwhile_is_not_served(taking):
    def restore(positions, place, *, between_slices, unmoved):
        taking.assignment.on_partitions_revoked({NEW})
        assert not between_slices()

    taking.restorer.restore.side_effect = restore

    assert taking.run() == {LIVE}


@pytest.mark.parametrize(("committed", "unmoved"), [(None, True), (7, False)])
def test_offsets_that_another_member_moves_meanwhile_are_noticed(taking, committed, unmoved):
    told = []

    def restore(positions, place, *, between_slices, unmoved):
        taking.consumer.committed.return_value = committed
        told.append(unmoved())

    taking.restorer.restore.side_effect = restore
    taking.run()

    assert told == [unmoved]


def test_a_live_partition_that_is_revoked_in_the_last_slice_stops_the_takeover(taking):
    def restore(positions, place, *, between_slices, unmoved):
        taking.assignment.on_partitions_revoked({LIVE})
        return {NEW.partition: Ledger.begun_at(0)}

    taking.restorer.restore.side_effect = restore

    taking.run()

    assert taking.committer.commits == []
    assert taking.assignment.new == {NEW}


def test_brokers_that_do_not_answer_are_asked_again(taking):
    taking.consumer.committed.side_effect = KafkaTimeoutError("planted")

    assert taking.run() == {LIVE}
    assert taking.assignment.new == {NEW}
