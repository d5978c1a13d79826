"""A partition that the client silently no longer fetches: the worker ends, the next goes on."""

import pytest
from kafka import TopicPartition

from stream import clients
from stream.exit_codes import UNAVAILABLE

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.matrix("D14")]
STALL_SECONDS = 10.0

# kafka-python 3.0.0 to 3.0.8 kept a partition over a rebalance and never fetched it again.
WITHOUT_THE_FIRST = """
from kafka.consumer.fetcher import Fetcher
original = Fetcher._fetchable_partitions
def without_the_first(self):
    stalled = os.path.exists(os.environ["TRIGGER"])
    first = lambda tp: tp.topic.endswith("clicks") and tp.partition == 0
    return [tp for tp in original(self) if not (stalled and first(tp))]
Fetcher._fetchable_partitions = without_the_first
"""


@pytest.fixture(params=["at_least_once", "exactly_once"])
def served(request, kafka, make_system, publish_bundle):
    """A system with a version, whose workers wait 10 s for a stalled partition."""
    processing = {"guarantee": request.param, "slot": "a"}
    system = make_system(kafka, processing=processing, worker={"stall_seconds": STALL_SECONDS})
    system.announce(publish_bundle())
    return system


@pytest.fixture
def done(served):
    """Count the clicks below the committed offsets, by one consumer for all the waiting."""
    topic = served.settings.topics.clicks
    observer = clients.click_consumer(served.settings.kafka, client_id="observer")
    partitions = [TopicPartition(topic, number) for number in range(2)]
    yield lambda: sum(observer.committed(tp, timeout_ms=30_000) or 0 for tp in partitions)
    observer.close(autocommit=False, timeout_ms=5_000)


def test_the_worker_exits_75_although_others_flow_and_the_next_one_answers_all(
    served, start_with_fault, start_process, start_load, done, wait_until
):
    stalled, strike = start_with_fault(served, WITHOUT_THE_FIRST)
    load = start_load(served, seed=1, per_second=100)
    wait_until(lambda: done() > 100, 120, "it answers")

    strike()
    code = stalled.wait(STALL_SECONDS + 60)
    waiting = load.sent - done()
    start_process(served)
    sent = load.stop()
    wait_until(lambda: done() == sent, 120, "the next worker answers all")

    assert code == UNAVAILABLE, stalled.text
    assert "partition stalled, exiting" in stalled.text
    assert f"{served.settings.topics.clicks}/0 stands at" in stalled.text
    assert waiting > 0
    report = served.verify()
    assert report.violations == []
    assert (report.clicks, report.pending) == (sent, 0)
