"""A broker that goes away for a while: workers stay, back off, and lose nothing."""

import time

import pytest

from stream.local_kafka import LocalKafka

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.always]


@pytest.fixture
def own_kafka(kafka_runtime, tmp_path):
    """A broker that a test may stop without disturbing another."""
    with LocalKafka(tmp_path / "kafka", runtime=kafka_runtime) as started:
        yield started


@pytest.fixture
def served(own_kafka, make_system, publish_bundle, wait_until):
    """A system whose worker has answered clicks, with timeouts that a frozen broker outlasts."""
    quick = {"delivery_timeout_ms": 3000, "request_timeout_ms": 1500}
    system = make_system(own_kafka, kafka=quick)
    system.announce(publish_bundle())
    worker = system.start_worker()
    for n in range(100):
        system.click(f"u{n % 10}", f"i{n}")
    system.flush()
    wait_until(lambda: worker.value("clicks_total") == 100, 30, "it serves")
    return system, worker


def test_a_frozen_broker_is_outlasted(own_kafka, served, start_load, answered, wait_until):
    system, worker = served
    (broker,) = own_kafka.broker_ids
    load = start_load(system, seed=1)
    wait_until(lambda: worker.value("clicks_total") > 200, 30, "it is under load")

    own_kafka.pause(broker)
    frozen = time.monotonic()
    wait_until(lambda: time.monotonic() - frozen > 5, 10, "five seconds have passed")
    own_kafka.resume(broker)
    wait_until(lambda: worker.value("clicks_total") > 1000, 60, "clicks are answered again")
    sent = 100 + load.stop()
    wait_until(lambda: answered(system) == sent, 30, "every click is answered")
    worker.stop()

    report = system.verify()
    assert report.violations == []
    assert (report.clicks, report.pending) == (sent, 0)


def test_a_broker_that_restarts_is_found_again(own_kafka, served, answered, wait_until):
    system, worker = served
    (broker,) = own_kafka.broker_ids

    own_kafka.kill(broker)
    own_kafka.restart(broker)
    for n in range(50):
        system.click(f"u{n % 10}", f"i{n}")
    system.flush()
    wait_until(lambda: answered(system) == 150, 60, "every click is answered")
    worker.stop()

    report = system.verify()
    assert report.violations == []
    assert (report.clicks, report.pending, report.sessions) == (150, 0, 10)
