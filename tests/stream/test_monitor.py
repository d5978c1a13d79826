"""Health, the endpoint, the batch histogram, the watchdog."""

import socket
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from stream.monitor import (
    LATENCY_BUCKETS,
    BatchHistogram,
    Health,
    MetricsServer,
    serve_metrics,
)


@given(batches=st.lists(st.lists(st.sampled_from([0.0, *LATENCY_BUCKETS, 3.3, 99.0]), max_size=30)))
def test_a_batch_histogram_counts_as_prometheus_own(batches):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    batch = BatchHistogram("x_seconds", "Help", LATENCY_BUCKETS, ours)
    single = Histogram("x_seconds", "Help", buckets=LATENCY_BUCKETS, registry=theirs)

    for values in batches:
        batch.observe_many(np.array(values))
        for value in values:
            single.observe(value)

    def samples(registry):
        (family,) = registry.collect()
        assert (family.name, family.type) == ("x_seconds", "histogram")
        return {
            (sample.name, *sample.labels.items()): pytest.approx(sample.value)
            for sample in family.samples
            if not sample.name.endswith("_created")
        }

    assert samples(ours) == {k: v.expected for k, v in samples(theirs).items()}
    assert b"x_seconds_bucket" in generate_latest(ours)


@pytest.fixture
def server():
    health = Health(["model", "group"])
    registry = CollectorRegistry()
    BatchHistogram("latency_seconds", "Help", (0.1,), registry)
    started = MetricsServer(registry, health, "127.0.0.1", 0)
    yield started, health
    started.close()


def get(server, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_readiness_names_what_is_missing(server):
    endpoint, health = server

    assert get(endpoint, "/readyz") == (503, "waiting for: model, group\n")
    health.set("model", True)
    health.set("group", True)
    assert get(endpoint, "/readyz") == (200, "ready\n")
    health.set("group", False)
    assert get(endpoint, "/readyz")[0] == 503


def test_liveness_is_the_age_of_the_last_beat(server):
    endpoint, _ = server

    assert get(endpoint, "/healthz") == (200, "alive\n")


def test_a_silent_loop_is_not_alive():
    health = Health([], max_silence_seconds=0.0)
    server = MetricsServer(CollectorRegistry(), health, "127.0.0.1", 0)

    status, text = get(server, "/healthz")
    server.close()

    assert (status, text) == (503, "no progress for 0 s\n")


def test_metrics_are_served_and_other_paths_are_not(server):
    endpoint, _ = server

    assert "latency_seconds_bucket" in get(endpoint, "/metrics")[1]
    assert get(endpoint, "/")[0] == 404


def test_an_unknown_condition_is_a_bug():
    with pytest.raises(KeyError):
        Health(["model"]).set("weather", True)


def test_a_taken_port_does_not_stop_the_process():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        assert serve_metrics(CollectorRegistry(), Health([]), "127.0.0.1", port) is None


def test_a_scraper_that_holds_its_socket_does_not_hold_the_exit(server):
    endpoint, _ = server

    with socket.create_connection(("127.0.0.1", endpoint.port)):
        assert get(endpoint, "/metrics")[0] == 200


WATCHED = """
import threading
from stream.monitor import Health, Watchdog
health = Health([])
dog = Watchdog(health, limit_seconds={limit})
dog.start()
{body}
"""


def run(body, limit):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WATCHED.format(body=body, limit=limit)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_watchdog_ends_a_silent_process_with_its_stacks():
    done = run("threading.Event().wait(30)", limit=0.2)

    assert done.returncode == 70
    assert "most recent call first" in done.stderr


def test_the_watchdog_lets_a_lively_process_be():
    # A second, since a busy machine may hold a process up for a moment.
    lively = "for _ in range(30): threading.Event().wait(0.05); health.beat()\ndog.stop()"

    done = run(lively, limit=1.0)

    assert done.returncode == 0
