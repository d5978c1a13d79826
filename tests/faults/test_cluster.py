"""Three brokers, of which one or more die, roll, freeze or go away under load: nothing is lost.

Both guarantees run at the same time, each with two workers; `python -m benchmarks.failover` repeats
most of it and reports the times.
"""

import signal

import pytest

from benchmarks.cluster import Cluster, make_application, make_stage
from benchmarks.roles import Roles

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # cut connections
]
DELIVERY_SECONDS = 8.0
AWAY_SECONDS = 60.0
FENCED = 75


@pytest.fixture
def stage(brokers, nursery, tmp_path):
    """What applications share."""
    return make_stage(brokers, nursery, tmp_path)


@pytest.fixture
def cluster(brokers, stage):
    """An application of each guarantee, answering clicks."""
    with Cluster(brokers, stage, seed=1) as started:
        yield started


def judge(cluster, recoveries):
    """Carry a fault out; require every invariant, and of exactly_once that nothing is repeated.

    That every partition moves again is waited for; how soon `benchmarks.failover` tells.
    """
    times = list(recoveries)
    print("seconds until every partition moved again:", times)
    findings = cluster.finish()
    for guarantee, found in findings.items():
        assert found.violations == [], guarantee
        assert found.clicks > 0
        assert found.lost == 0
    assert findings["exactly_once"].repeated == 0


@pytest.mark.matrix("F10")
@pytest.mark.parametrize("topic", ["clicks", "sessions", "recommendations"])
def test_kill_9_of_a_partition_leader_loses_nothing(cluster, topic):
    judge(cluster, cluster.kill_leader(topic))


@pytest.mark.matrix("F11")
def test_kill_9_of_a_transaction_coordinator_loses_nothing(cluster):
    judge(cluster, cluster.kill_transaction_coordinator())


@pytest.mark.matrix("F11")
def test_kill_9_of_the_group_coordinator_loses_nothing(cluster):
    judge(cluster, cluster.kill_group_coordinator())


@pytest.mark.matrix("F12")
def test_a_clean_restart_of_every_broker_in_turn_loses_nothing(cluster):
    judge(cluster, cluster.restart_each())


@pytest.mark.matrix("F13")
@pytest.mark.timeout(300)
def test_workers_outlast_a_minute_without_any_broker(cluster):
    judge(cluster, cluster.go_away(AWAY_SECONDS))

    assert [end.code for app in cluster.applications for end in app.exits] == [0, 0, 0, 0]


@pytest.mark.matrix("F14", "D15")
def test_a_broker_that_freezes_for_20_seconds_loses_nothing(cluster):
    judge(cluster, cluster.freeze(20.0))


@pytest.mark.matrix("F15", "D1")
def test_too_few_replicas_for_longer_than_the_delivery_timeout_lose_nothing(cluster):
    judge(cluster, cluster.starve(1.5 * DELIVERY_SECONDS))

    assert [end.code for app in cluster.applications for end in app.exits] == [0, 0, 0, 0]


@pytest.fixture
def short_transactions(stage):
    """An application whose transactions are aborted by the brokers after three seconds."""
    quick = {"delivery_timeout_ms": 2000, "request_timeout_ms": 1000, "session_timeout_ms": 8000}
    return make_application(
        stage, "exactly_once", seed=1, kafka=quick, processing={"transaction_timeout_ms": 3000}
    )


@pytest.mark.matrix("F25")
def test_a_transaction_of_a_frozen_worker_is_aborted_and_its_clicks_answered_again(
    short_transactions, wait_until
):
    roles = Roles(short_transactions.settings.kafka)
    transactional_id = f"{short_transactions.settings.kafka.app}-a"
    with short_transactions as application:
        application.scale(["a"])
        application.until(application.serves, 60, "it serves")
        holder = application.process("a")

        def is_in(*states):
            return lambda: roles.transaction_state(transactional_id) in states

        def stopped_and_aborted():
            holder.signal(signal.SIGSTOP)
            if is_in("Ongoing")():
                wait_until(is_in("CompleteAbort", "CompleteCommit"), 15, "the brokers end it")
                if is_in("CompleteAbort")():
                    return True
                # The stopped worker's commit was on its way already.
            holder.signal(signal.SIGCONT)
            return False

        wait_until(stopped_and_aborted, 60, "it is stopped inside a transaction that is aborted")
        holder.signal(signal.SIGCONT)
        findings = application.finish()

    assert {end.code for end in application.exits} <= {0, FENCED}  # whichever it notices first
    assert findings.violations == []
    assert (findings.lost, findings.repeated) == (0, 0)


@pytest.mark.matrix("F25")
def test_a_worker_that_holds_a_transaction_for_too_long_leaves_with_75(short_transactions):
    with short_transactions as application:
        application.plant("a", "after_flush:30:6")
        application.scale(["a"])
        application.until(lambda: bool(application.exits), 60, "it leaves")
        findings = application.finish()

    assert [end.code for end in application.exits] == [FENCED, 0]
    assert findings.violations == []
    assert (findings.lost, findings.repeated) == (0, 0)
