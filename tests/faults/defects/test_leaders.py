"""D17: a broker that lost a partition is asked for its offsets again and again."""

from contextlib import closing

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError

from benchmarks.cluster import BROKERS
from benchmarks.roles import Roles
from stream import clients
from stream.positions import end_offsets
from stream.settings import KafkaSettings

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # cut connections
]

LONG_ENOUGH_MS = 5_000


@pytest.fixture
def asks_the_old_leader(brokers, topic_names, wait_until):
    """A reader, and a partition whose leader it knew before that one froze for a while."""
    settings = KafkaSettings(bootstrap_servers=brokers.bootstrap_servers)
    roles, tp = Roles(settings), TopicPartition(topic_names() + "moved", 0)
    topic = {"num_partitions": 1, "replication_factor": BROKERS}
    with closing(clients.admin(settings)) as admin:
        admin.create_topics({tp.topic: topic})
    wait_until(lambda: roles.fewest_in_sync([tp.topic]) == BROKERS, 30, "the topic is there")
    with closing(clients.reader(settings, client_id="reader")) as reader:
        assert reader.end_offsets([tp], timeout_ms=LONG_ENOUGH_MS) == {tp: 0}
        old = roles.leader(tp.topic, 0)
        brokers.pause(old)
        try:
            wait_until(lambda: roles.leader(tp.topic, 0) != old, 60, "another broker leads")
        finally:
            brokers.resume(old)
        wait_until(lambda: roles.fewest_in_sync([tp.topic]) == BROKERS, 60, "it is back")
        yield reader, tp


@pytest.mark.matrix("D17", "F14")
@pytest.mark.xfail(strict=True, raises=KafkaTimeoutError, reason="D17: asks the old one")
def test_defect_d17_offsets_are_asked_of_the_new_leader(asks_the_old_leader):
    reader, tp = asks_the_old_leader

    assert reader.end_offsets([tp], timeout_ms=LONG_ENOUGH_MS) == {tp: 0}


@pytest.mark.matrix("D17", "F14")
def test_guard_d17_offsets_are_asked_of_the_new_leader(asks_the_old_leader):
    reader, tp = asks_the_old_leader

    assert end_offsets(reader, [tp], timeout_ms=LONG_ENOUGH_MS) == {tp: 0}
