"""What a reader sees of a worker that repeats itself, and what the reader's rule makes of it."""

import pytest
from kafka import TopicPartition

from stream import clients
from stream.deduplication import Deduplicator
from stream.headers import provenance
from stream.positions import as_commit

pytestmark = pytest.mark.kafka


def wind_back(system, offset):
    """Move the group to an earlier offset, as a crash between output and commit leaves it."""
    consumer = clients.click_consumer(system.settings.kafka, client_id="test-rewind")
    parts = [TopicPartition(system.settings.topics.clicks, number) for number in range(2)]
    consumer.assign(parts)
    consumer.commit(as_commit(dict.fromkeys(parts, offset)), timeout_ms=10_000)
    consumer.close()


def test_a_reader_that_drops_repeats_sees_each_click_once_and_in_order(
    system, publish_bundle, wait_until
):
    system.announce(publish_bundle())
    for n in range(80):
        system.click(f"u{n % 9}", f"i{n}")
    system.flush()
    for begin in (None, 0, 3):
        if begin is not None:
            wind_back(system, begin)
        running = system.start_worker()
        wait_until(lambda: sum(filter(None, system.committed().values())) == 80, 30, "80 clicks")
        running.stop()

    deduplicator = Deduplicator()
    records = system.records("recommendations")
    passed = [provenance(r.headers) for r in records if deduplicator.is_new(r.headers)]

    assert len(records) > 200
    for partition in range(2):
        firsts = [p for p in passed if p.partition == partition]
        assert [p.offset for p in firsts] == list(range(len(firsts)))
        assert not any(p.replayed for p in firsts)
    assert len(passed) == 80
    assert deduplicator.state() == {
        f"{system.settings.topics.clicks}/{partition}": offset - 1
        for partition, offset in system.committed().items()
    }
    assert system.verify().violations == []
