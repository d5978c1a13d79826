"""Dead letters become clicks again on real Kafka: each once, across runs, failures and rivals."""

import threading
import time
from contextlib import closing
from dataclasses import dataclass, field

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError

from stream import clients
from stream.changelog import read_to_end
from stream.clients import admin
from stream.dead_letter_replay import Replay, ReplayError, preview
from stream.dead_letters import PREFIX, dead_letter
from stream.replay_selection import SLICE, Selection
from stream.settings import KafkaSettings, ProcessingSettings, TopicSettings
from stream.validation import partition_of

pytestmark = pytest.mark.kafka
REASON = PREFIX + "reason"


@dataclass(frozen=True)
class Click:
    offset: int
    key: bytes | None
    value: bytes | None
    topic: str = "clicks"
    partition: int = 0
    timestamp: int = 0
    headers: list[tuple[str, bytes]] = field(default_factory=list)


class Dead:
    """Topics of their own with dead letters, and runs of the replay over them."""

    def __init__(self, kafka, prefix):
        self.settings = KafkaSettings(
            bootstrap_servers=kafka.bootstrap_servers, app=prefix + "app", session_timeout_ms=6000
        )
        self.topics = TopicSettings(
            clicks=prefix + "clicks", dead_letters=prefix + "dlq", partitions=2
        )
        with closing(admin(self.settings)) as manager:
            names = (self.topics.clicks, self.topics.dead_letters)
            new = {name: {"num_partitions": 2} for name in names}
            manager.create_topics(new, wait_for_metadata=True)
        self.producer = clients.producer(self.settings, client_id="p")
        self._opened = []

    def bury(self, number, *, key=b"u", reason="malformed", **fields):
        click = Click(number, key, b"%d" % number, **fields)
        letter = dead_letter(click, reason, app="a", version="1")
        self.producer.send(
            self.topics.dead_letters, letter.value, letter.key, letter.headers, partition=0
        )

    def bury_many(self, numbers, **fields):
        for number in numbers:
            self.bury(number, **fields)
        self.producer.flush(timeout=10)

    def selection(self, **fields):
        return Selection(now_ms=int(time.time() * 1_000), **fields)

    def make_replay(self, producer=None, **fields):
        consumer = clients.dead_letter_consumer(self.settings, client_id="r")
        self._opened.append(consumer)
        return Replay(consumer, producer or self.producer, self.topics, self.selection(**fields))

    def replay(self, going_on=lambda tally: True, producer=None, **fields):
        """One run of the command; returns how many letters it sent."""
        made = self.make_replay(producer, **fields)
        try:
            made.run(going_on)
        finally:
            made._consumer.close(autocommit=False, timeout_ms=5_000)
        return made.tally.chosen.total()

    def clicks(self):
        with closing(clients.reader(self.settings, client_id="c")) as reader:
            parts = [TopicPartition(self.topics.clicks, number) for number in range(2)]
            ends = reader.end_offsets(parts, timeout_ms=10_000)
            return list(read_to_end(reader, ends, between_slices=lambda: True))

    def replayed(self):
        return sorted(int(record.value) for record in self.clicks())

    def close(self):
        for consumer in self._opened:
            consumer.close(autocommit=False, timeout_ms=5_000)
        self.producer.close(timeout=5)


@pytest.fixture
def dead(kafka, topic_names):
    made = Dead(kafka, topic_names())
    yield made
    made.close()


def test_a_letter_becomes_the_click_it_was_with_one_attempt_more(dead):
    headers = [("content-type", b"application/json"), (PREFIX + "attempt", b"1")]
    dead.bury_many([7], key=b"alice", headers=headers, partition=1)

    assert dead.replay() == 1

    (click,) = dead.clicks()
    assert (click.key, click.value) == (b"alice", b"7")
    assert click.partition == partition_of(b"alice", 2)
    assert dict(click.headers) == {
        "content-type": b"application/json",
        PREFIX + "attempt": b"2",
    }


def test_the_letters_of_a_user_keep_their_order(dead):
    dead.bury_many(range(2 * SLICE + 5))

    assert dead.replay() == 2 * SLICE + 5
    assert [int(record.value) for record in dead.clicks()] == list(range(2 * SLICE + 5))


def test_a_second_run_sends_nothing_and_later_letters_are_sent_by_a_third(dead):
    dead.bury_many(range(5))

    assert dead.replay() == 5
    assert dead.replay() == 0
    dead.bury_many(range(5, 8))
    assert dead.replay() == 3
    assert dead.replayed() == list(range(8))


def test_reasons_and_limits_in_any_order_send_each_letter_once(dead):
    for number in range(12):
        dead.bury(number, reason=("type", "range", "id")[number % 3])
    dead.bury_many([12], reason="oversize")

    assert dead.replay(reasons=frozenset({"range"}), limit=2) == 2
    assert dead.replay(reasons=frozenset({"type", "range"}), limit=3) == 3
    assert dead.replay(reasons=frozenset({"range"})) == 2
    assert dead.replay(reasons=frozenset({"never"})) == 0
    assert dead.replay() == 5

    assert dead.replayed() == list(range(12))  # the oversize one was cut


def test_a_preview_says_what_a_run_does_and_changes_nothing(dead):
    dead.bury_many(range(3))
    dead.bury_many([3, 4], reason="id")
    dead.bury_many([5], headers=[(PREFIX + "attempt", b"3")])
    with closing(clients.dead_letter_consumer(dead.settings, client_id="r")) as consumer:
        selection = dead.selection(reasons=frozenset({"malformed"}))
        tallies = [preview(consumer, dead.topics.dead_letters, selection) for _ in range(2)]

    assert tallies[0] == tallies[1]
    assert tallies[0].chosen == {"malformed": 3}
    assert tallies[0].refused == {"at_limit": 1}
    assert tallies[0].others == {"id": 2}
    assert dead.clicks() == []
    assert dead.replay(reasons=frozenset({"malformed"})) == 3


def test_a_run_that_is_asked_to_stop_ends_after_a_slice_and_is_continued(dead):
    dead.bury_many(range(2 * SLICE))

    first = dead.replay(lambda tally: False)

    assert 0 < first <= SLICE
    assert dead.replay() == 2 * SLICE - first
    assert dead.replayed() == list(range(2 * SLICE))


class Killed(BaseException):
    """The process ends here."""


def test_a_run_that_is_killed_before_its_commit_repeats_no_more_than_a_slice(dead, monkeypatch):
    dead.bury_many(range(3 * SLICE))
    made = dead.make_replay()
    commit, commits = made._consumer.commit, []

    def killed_at_the_third(*arguments, **options):
        commits.append(1)
        if len(commits) == 3:
            raise Killed
        commit(*arguments, **options)

    monkeypatch.setattr(made._consumer, "commit", killed_at_the_third)
    with pytest.raises(Killed):
        made.run(lambda tally: True)
    made._consumer.close(autocommit=False, timeout_ms=5_000)

    dead.replay()

    sent = dead.replayed()
    assert set(sent) == set(range(3 * SLICE))
    assert len(sent) - 3 * SLICE <= SLICE


class Failing:
    """A producer whose sends fail from the n-th on."""

    def __init__(self, producer, working):
        self._producer = producer
        self._working = working

    def send(self, *arguments, **options):
        self._working -= 1
        if self._working < 0:
            raise KafkaTimeoutError("too late")
        return self._producer.send(*arguments, **options)

    def flush(self, timeout):
        self._producer.flush(timeout=timeout)


def test_what_was_acknowledged_before_a_failure_is_not_sent_again(dead):
    dead.bury_many(range(10))

    with pytest.raises(ReplayError, match=r"6 letters were not acknowledged .*too late.*again"):
        dead.replay(producer=Failing(dead.producer, working=4))

    assert dead.replay() == 6
    assert dead.replayed() == list(range(10))


def test_a_second_run_takes_over_and_both_together_send_each_letter_once(dead, wait_until):
    dead.bury_many(range(3 * SLICE))
    first = dead.make_replay()
    ends = {}

    def second():
        ends["second"] = dead.replay()

    rival = threading.Thread(target=second)
    group = dead.settings.app + "-dlq-replay"

    def held_until_the_rival_joins(tally):
        if not rival.ident:
            rival.start()
            with closing(admin(dead.settings)) as manager:
                describe = manager.describe_groups
                wait_until(
                    lambda: len(describe([group])[group]["members"]) == 2, 30, "the rival joins"
                )
            wait_until(first._consumer._coordinator.need_rejoin, 30, "the first one is told")
        return True

    with pytest.raises(ReplayError, match=r"another .* is running"):
        first.run(held_until_the_rival_joins)
    first._consumer.close(autocommit=False, timeout_ms=5_000)
    rival.join(60)

    assert first.tally.chosen.total() + ends["second"] == 3 * SLICE
    assert dead.replayed() == list(range(3 * SLICE))


def test_letters_below_a_marker_of_a_transaction_are_read_to_the_end(dead):
    sender = clients.transactional_producer(
        dead.settings, ProcessingSettings(), client_id="t", slot="s"
    )
    sender.init_transactions()
    for number in range(3):
        letter = dead_letter(Click(number, b"u", b"%d" % number), "id", app="a", version="1")
        sender.begin_transaction()
        sender.send(dead.topics.dead_letters, *letter[:2], letter.headers, partition=0)
        sender.flush(timeout=10)
        sender.commit_transaction()
    sender.close(timeout=5)
    started = time.monotonic()

    assert dead.replay() == 3
    assert dead.replay() == 0
    assert time.monotonic() - started < 60


def test_a_missing_topic_is_named(dead):
    dead.topics = dead.topics.model_copy(update={"clicks": "nowhere"})

    with pytest.raises(ReplayError, match="no topic nowhere: run `nextclick topics ensure`"):
        dead.replay()


def test_no_dead_letters_are_nothing_to_do(dead):
    assert dead.replay() == 0
    dead.topics = dead.topics.model_copy(update={"dead_letters": "nowhere.dlq"})
    assert dead.replay() == 0
