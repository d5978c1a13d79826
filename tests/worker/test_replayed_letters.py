"""Dead letters that are replayed into a running worker: healed once, or dead again and counted."""

import json
import time

import pytest
from kafka import KafkaProducer
from kafka.serializer import Serializer

from stream import clients
from stream.dead_letter_replay import Replay
from stream.dead_letters import parse
from stream.replay_selection import Selection
from stream.validation import partition_of

pytestmark = pytest.mark.kafka


@pytest.fixture
def replay(system):
    """Run the replay once; returns its tally."""

    def run():
        consumer = clients.dead_letter_consumer(system.settings.kafka, client_id="r")
        selection = Selection(now_ms=int(time.time() * 1_000))
        made = Replay(consumer, system.producer, system.settings.topics, selection)
        try:
            made.run(lambda tally: True)
        finally:
            consumer.close(autocommit=False, timeout_ms=5_000)
        return made.tally

    return run


def test_a_click_that_stays_unusable_is_tried_three_times(
    system, publish_bundle, wait_until, replay
):
    system.announce(publish_bundle())
    worker = system.start_worker()
    system.send(b"{", "u")
    system.flush()
    for attempt in range(4):
        dead = attempt + 1
        wait_until(lambda n=dead: worker.value("clicks_total") == n, 30, f"{dead} dead letters")
        tally = replay()

    worker.stop()

    letters = sorted(map(parse, system.records("dead_letters")), key=lambda letter: letter.attempt)
    assert [letter.attempt for letter in letters] == [0, 1, 2, 3]
    assert {(letter.key, letter.value, letter.reason) for letter in letters} == {
        (b"u", b"{", "malformed")
    }
    assert (tally.chosen.total(), tally.refused) == (0, {"at_limit": 1})
    assert replay().refused == {}
    assert system.verify().violations == []


def test_a_click_on_the_wrong_partition_is_answered_after_its_replay(
    system, publish_bundle, wait_until, replay
):
    system.announce(publish_bundle())
    worker = system.start_worker()
    click = {"user_id": "u", "item_id": "i1", "timestamp": 4_000_000_000_000}
    wrong = 1 - partition_of(b"u", 2)
    system.send(json.dumps(click), "u", partition=wrong)
    system.send(json.dumps(click), None, partition=wrong)
    system.flush()
    wait_until(lambda: worker.value("dead_letters_total", reason="misrouted") == 2, 30, "misrouted")

    replay()
    wait_until(lambda: len(system.recommendations()) == 2, 30, "both are answered")
    worker.stop()

    assert {r.user_id for r in system.recommendations()} == {"u"}
    assert system.verify().violations == []


class ToNull(Serializer):
    def serialize(self, topic, headers, data):
        return None


def test_a_record_with_neither_key_nor_value_does_not_stop_the_worker(
    system, publish_bundle, wait_until
):
    system.announce(publish_bundle())
    worker = system.start_worker()
    # Other clients can send it; this one only when the value becomes null on the way.
    sender = KafkaProducer(
        bootstrap_servers=system.settings.kafka.bootstrap_servers,
        value_serializer=ToNull(),
    )
    sender.send(system.settings.topics.clicks, value=b"x", partition=0).get(timeout=10)
    sender.close(timeout=5)
    system.click("u", "i1")
    system.flush()

    wait_until(lambda: worker.value("clicks_total") == 2, 30, "both have an outcome")
    worker.stop()

    (letter,) = map(parse, system.records("dead_letters"))
    assert (letter.reason, letter.key, letter.value) == ("malformed", None, b"")
    assert system.verify().violations == []
