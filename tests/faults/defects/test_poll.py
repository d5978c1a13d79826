"""D6: an exception inside `poll()` makes the next one hang; damaged records end the process."""

import json
import subprocess
import sys
from random import Random
from types import SimpleNamespace

import pytest
from kafka import KafkaProducer
from kafka.errors import CorruptRecordError

from benchmarks.chaos import network_faults as faults
from stream import clients

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # cut connections
]

DAMAGED = 74
SCRIPT = """
import json, signal, sys, warnings
signal.alarm(40)
warnings.simplefilter("ignore")
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import CorruptRecordError

address, topic, deserialise = sys.argv[1:]
consumer = KafkaConsumer(
    bootstrap_servers=address,
    client_id="reader",
    enable_auto_commit=False,
    value_deserializer=json.loads if deserialise == "yes" else None,
)
consumer.assign([TopicPartition(topic, 0)])
consumer.seek_to_beginning()
for attempt in range(100):
    try:
        consumer.poll(timeout_ms=200)
    except (CorruptRecordError, ValueError):
        print("raised", flush=True)
        break
consumer.poll(timeout_ms=200)
print("polled again", flush=True)
"""


@pytest.fixture
def polls_again(pipe):
    """Poll the output topic in a process of its own until that raises; tell whether it can again.

    A process that hangs is killed.
    """

    def run(*, deserialise):
        command = [sys.executable, "-c", SCRIPT, pipe.proxy.bootstrap_servers, pipe.output]
        process = subprocess.Popen(
            [*command, "yes" if deserialise else "no"], stdout=subprocess.PIPE, text=True
        )
        with process:
            if process.stdout.readline() != "raised\n":
                raise RuntimeError("the first poll did not raise")
            try:
                return process.communicate(timeout=3)[0] == "polled again\n"
            except subprocess.TimeoutExpired:
                process.kill()
                return False

    return run


def send_all(pipe, values):
    producer = KafkaProducer(bootstrap_servers=pipe.proxy.bootstrap_servers)
    for value in values:
        producer.send(pipe.output, value, partition=0).get(timeout=5)
    producer.close(timeout=5)


@pytest.mark.matrix("D6")
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="D6: the second poll hangs")
def test_defect_d6_a_poll_after_a_record_that_does_not_deserialise_returns(pipe, polls_again):
    send_all(pipe, [b"{}", b"{bad", b"{}"])

    assert polls_again(deserialise=True)


@pytest.mark.matrix("D6", "F24")
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="D6: the second poll hangs")
def test_defect_d6_a_poll_after_damage_in_one_reply_returns(pipe, polls_again):
    send_all(pipe, [json.dumps("x" * 100).encode()])
    pipe.proxy.plant(faults.flip_byte(Random(1), times=1, client="reader"))

    assert polls_again(deserialise=False)


@pytest.mark.matrix("D6")
def test_guard_d6_no_consumer_of_ours_deserialises(pipe):
    consumers = [
        clients.click_consumer(pipe.settings, client_id="a"),
        clients.trainer_consumer(pipe.settings, client_id="b"),
        clients.reader(pipe.settings, client_id="c"),
        clients.dead_letter_consumer(pipe.settings, client_id="d"),
    ]
    found = [
        consumer.config[name]
        for consumer in consumers
        for name in ("key_deserializer", "value_deserializer")
    ]
    for consumer in consumers:
        consumer.close()

    assert found == [None] * 8


@pytest.fixture(params=["at_least_once", "exactly_once"])
def system(request, kafka, make_system, publish_bundle):
    """A system with a model."""
    made = make_system(kafka, processing={"guarantee": request.param, "slot": "a"})
    made.announce(publish_bundle())
    return made


@pytest.mark.matrix("D6", "F24")
def test_guard_d6_a_worker_leaves_with_74_at_damaged_records_and_loses_none(
    proxy, system, start_process, answered, wait_until
):
    address = {"bootstrap_servers": proxy.bootstrap_servers}
    kafka = system.settings.kafka.model_copy(update=address)
    behind_proxy = SimpleNamespace(settings=system.settings.model_copy(update={"kafka": kafka}))
    worker = start_process(behind_proxy)
    send_clicks(system, 10)
    wait_until(lambda: answered(system) == 10, 60, "it answers")

    fault = proxy.plant(faults.flip_byte(Random(1), client=f"{kafka.app}-worker", times=1))
    send_clicks(system, 50)
    code = worker.wait(30)
    start_process(behind_proxy)
    wait_until(lambda: answered(system) == 60, 60, "its successor answers what was damaged")

    assert fault.hits == 1
    assert code == DAMAGED
    assert CorruptRecordError.__name__ in worker.text
    report = system.verify()
    assert (report.violations, report.clicks, report.pending) == ([], 60, 0)


def send_clicks(system, number):
    for n in range(number):
        system.click(f"u{n}", f"i{n}")
    system.flush()
