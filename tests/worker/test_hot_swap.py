"""Twenty weight refreshes under load: no click lost, no list that mixes versions, no long pause."""

import pytest

pytestmark = pytest.mark.kafka
NUM_VERSIONS = 21


def version_name(n):
    return f"20261123T{n:09d}Z-{n:08x}"


@pytest.fixture
def refreshed(system, publish_bundle, start_load, wait_until):
    """A system whose worker took twenty versions while it answered, and the clicks sent."""
    published = [publish_bundle(version=version_name(n), seed=n) for n in range(NUM_VERSIONS)]
    system.announce(published[0])
    worker = system.start_worker()
    wait_until(lambda: worker.value("assigned_partitions") == 2, 30, "it serves")
    load = start_load(system, seed=1, num_items=200)
    for n in range(1, NUM_VERSIONS):
        answered = worker.value("clicks_total")
        named = {"name": "default", "version": version_name(n), "encoder": version_name(n)}
        system.announce(published[n])
        wait_until(lambda named=named: worker.value("model_info", **named), 20, f"{n} serves")
        wait_until(lambda a=answered: worker.value("clicks_total") > a, 20, "clicks go on")
    sent = load.stop()
    wait_until(lambda: worker.value("clicks_total") == sent, 20, "every click is answered")
    worker.stop()
    return system, worker, sent


def test_twenty_refreshes_lose_no_click_mix_nothing_and_pause_briefly(refreshed):
    system, worker, sent = refreshed

    swaps = worker.value("model_swap_pause_seconds_count")
    assert swaps == NUM_VERSIONS
    assert worker.value("model_swap_pause_seconds_bucket", le="1.0") == swaps
    assert worker.value("model_loads_total", outcome="loaded", reason="") == NUM_VERSIONS
    report = system.verify()
    assert report.violations == []
    assert (report.clicks, report.repeated) == (sent, 0)
    assert len(report.model_versions) >= NUM_VERSIONS - 1
    assert system.check_scores() > 100
