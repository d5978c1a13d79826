"""D16: rejoins that changed metadata began and that a short poll leaves are gone on with."""

from contextlib import closing, suppress
from random import Random

import pytest
from kafka import TopicPartition
from kafka.errors import NoOffsetForPartitionError

from benchmarks.chaos import network_faults as faults
from benchmarks.chaos.proxy import FaultProxy
from stream.clients import admin, click_consumer
from stream.rejoin import finish_rejoin
from stream.settings import KafkaSettings
from stream.sole_member import SoleMember

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.matrix("D16", "F7")]


@pytest.fixture
def proxy(kafka):
    with FaultProxy(kafka.bootstrap_servers) as started:
        yield started


@pytest.fixture
def member(proxy, kafka, topic_names):
    """A consumer of a topic with one partition, and what adds some; its group is slow to answer."""
    prefix = topic_names()
    topic = prefix + "clicks"
    consumer = click_consumer(
        KafkaSettings(
            bootstrap_servers=proxy.bootstrap_servers,
            app=prefix + "app",
            consumer={"metadata_max_age_ms": 200},
        ),
        client_id="member",
    )
    with closing(admin(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers))) as manager:
        manager.create_topics({topic: {"num_partitions": 1}}, wait_for_metadata=True)
        proxy.plant(faults.delay("SyncGroup", seconds=(0.3, 0.3), rng=Random(1), on="reply"))
        yield consumer, topic, lambda num: manager.create_partitions({topic: num})
    consumer.close(autocommit=False, timeout_ms=5_000)


def given(topic, number):
    return {TopicPartition(topic, n) for n in range(number)}


def test_a_member_with_short_polls_gets_its_new_partitions(member, wait_until):
    consumer, topic, grow_to = member
    consumer.subscribe([topic])

    def held(number):
        with suppress(NoOffsetForPartitionError):
            consumer.poll(timeout_ms=50)
        finish_rejoin(consumer)
        return consumer.assignment() == given(topic, number)

    wait_until(lambda: held(1), 30, "the only partition")
    for number in (2, 3):
        grow_to(number)
        wait_until(lambda n=number: held(n), 20, f"{number} partitions")


def test_the_sole_member_of_a_group_gets_through(member, wait_until):
    consumer, topic, grow_to = member
    consumer.partitions_for_topic(topic)
    sole = SoleMember(consumer, given(topic, 1))
    sole.join()
    assert sole.settled

    grow_to(2)
    sole_of_two = SoleMember(consumer, given(topic, 2))
    sole_of_two.join()

    assert sole_of_two.settled


def test_a_worker_serves_on_after_metadata_that_missed_its_topic(
    proxy, make_system, publish_bundle, wait_until
):
    system = make_system(proxy)
    system.announce(publish_bundle())
    worker = system.start_worker()
    system.click("u", "i1")
    system.flush()
    wait_until(lambda: worker.value("clicks_total") == 1, 60, "it serves")
    worker_only = f"{system.settings.kafka.app}-worker"
    proxy.plant(
        faults.delay("SyncGroup", seconds=(0.3, 0.3), rng=Random(1), on="reply", client=worker_only)
    )
    joins = proxy.passed["JoinGroup"]

    worker.worker._consumer._coordinator._metadata_snapshot = {}  # as a broker that just started
    wait_until(lambda: proxy.passed["JoinGroup"] > joins, 30, "it joins again")
    for n in range(20):
        system.click(f"u{n}", "i1")
    system.flush()

    wait_until(lambda: worker.value("clicks_total") == 21, 30, "every click is answered")
    worker.stop()
    assert system.verify().violations == []
