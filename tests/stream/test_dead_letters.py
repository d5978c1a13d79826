"""Dead letters: written with their reason, read back whole."""

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaProducer

from stream.clients import admin, producer
from stream.dead_letters import PREFIX, Letter, dead_letter, newest, parse
from stream.decoding import DecodeError
from stream.headers import click_body, parse_headers
from stream.messages import decode_click
from stream.settings import KafkaSettings


@dataclass(frozen=True)
class Click:
    topic: str = "clicks"
    partition: int = 3
    offset: int = 42
    timestamp: int = 1_795_000_000_000
    key: bytes | None = b"u"
    value: bytes | None = b"{"
    headers: Sequence[tuple[str, bytes | None]] = ()


def buried(letter: Letter) -> Click:
    """The record that a reader of the dead letters sees."""
    return Click(
        topic="clicks.dlq", partition=0, offset=0, key=letter.key, value=letter.value,
        headers=letter.headers,
    )  # fmt: skip


def letter_of(click: Click, reason: str = "malformed", **changes: object) -> Letter:
    return dead_letter(click, reason, app="shop", version="0.1.0", **changes)


def test_a_dead_letter_keeps_the_bytes_and_says_where_and_why():
    error = DecodeError("malformed", "truncated", b"{")

    letter = letter_of(Click(), error=error)

    assert (letter.key, letter.value) == (b"u", b"{")
    assert dict(letter.headers) == {
        PREFIX + name: text
        for name, text in {
            "topic": b"clicks",
            "partition": b"3",
            "offset": b"42",
            "timestamp": b"1795000000000",
            "stage": b"decode",
            "reason": b"malformed",
            "exception.class": b"DecodeError",
            "message": b"truncated",
            "app": b"shop",
            "version": b"0.1.0",
            "attempt": b"0",
        }.items()
    }


def test_a_dead_letter_is_read_back():
    found = parse(buried(letter_of(Click(), "misrouted", stage="route")))

    assert (found.topic, found.partition, found.offset) == ("clicks", 3, 42)
    assert (found.stage, found.reason, found.message) == ("route", "misrouted", "")
    assert (found.key, found.value, found.attempt) == (b"u", b"{", 0)


def test_an_oversize_value_is_cut_to_1_kib_with_size_and_hash_of_the_whole():
    value = b"x" * 2_000_000

    letter = letter_of(Click(value=value), "oversize")

    said = parse_headers(letter.headers)
    assert letter.value == value[:1024]
    assert said[PREFIX + "value.bytes"] == "2000000"
    assert said[PREFIX + "value.sha256"] == hashlib.sha256(value).hexdigest()


def test_an_oversize_key_is_cut_too():
    letter = letter_of(Click(key=b"k" * 20_000))

    assert letter.key == b"k" * 1024
    assert parse_headers(letter.headers)[PREFIX + "key.bytes"] == "20000"


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        (None, b"{", (None, b"{")),
        (b"u", None, (b"u", None)),
        (None, None, (None, b"")),  # the client refuses to send neither
    ],
)
def test_null_stays_null_where_it_can_be_sent(key, value, kept):
    letter = letter_of(Click(key=key, value=value))

    assert (letter.key, letter.value) == kept


def test_the_attempt_of_a_replayed_click_and_its_content_type_are_kept():
    headers = [
        (PREFIX + "attempt", b"2"),
        ("content-type", b"application/cloudevents+json"),
        ("other", b"\xff"),
    ]

    letter = letter_of(Click(headers=headers))

    assert parse(buried(letter)).attempt == 2
    assert parse_headers(letter.headers)["content-type"] == "application/cloudevents+json"
    assert "other" not in dict(letter.headers)


@pytest.mark.parametrize(
    "attempt",
    [b"\xff", b"many", b"", b"-5", None, b"1_0", b"+1", b" 1", "\u0663".encode(), b"9" * 19],
)
def test_a_forged_attempt_counts_as_none(attempt):
    assert parse(buried(letter_of(Click(headers=[(PREFIX + "attempt", attempt)])))).attempt == 0


def test_a_record_that_is_no_dead_letter_is_shown_as_far_as_it_goes():
    found = parse(Click(headers=[(PREFIX + "offset", b"x"), (PREFIX + "reason", b"\xff")]))

    assert (found.topic, found.offset, found.reason, found.value) == ("", -1, "", b"{")


def test_headers_that_say_anything_can_be_shown_as_json():
    names = ("partition", "offset", "timestamp", "attempt")

    found = parse(Click(headers=[(PREFIX + name, b"9" * 1000) for name in names]))

    assert msgspec.json.decode(msgspec.json.encode(found))["attempt"] == 0


def test_a_letter_says_whether_it_was_cut():
    assert not parse(buried(letter_of(Click()))).cut
    assert parse(buried(letter_of(Click(value=b"x" * 2_000), "oversize"))).cut
    assert parse(buried(letter_of(Click(key=b"k" * 20_000)))).cut


BYTES = st.none() | st.binary(max_size=64) | st.binary(max_size=8).map(lambda part: part * 5_000)
HEADERS = st.lists(
    st.tuples(st.sampled_from(["content-type", PREFIX + "attempt", "x"]), BYTES), max_size=4
)


@given(key=BYTES, value=BYTES, headers=HEADERS)
def test_whatever_a_record_holds_its_dead_letter_can_be_sent(key, value, headers):
    click = Click(key=key, value=value, headers=headers)
    try:
        decode_click(click_body(value, headers))
        error, reason = None, "misrouted"
    except DecodeError as caught:
        error, reason = caught, caught.reason

    letter = letter_of(click, reason, error=error)

    assert letter.key is not None or letter.value is not None
    assert all(type(name) is str and type(text) is bytes for name, text in letter.headers)
    held = [letter.key or b"", letter.value or b"", *(text for _, text in letter.headers)]
    assert sum(map(len, held)) < 40_000
    assert parse(buried(letter)).reason == reason


@pytest.mark.kafka
def test_the_newest_dead_letters_of_each_partition_are_read(kafka, topic_names):
    topic = topic_names() + "dlq"
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
    with closing(admin(settings)) as manager:
        manager.create_topics({topic: {"num_partitions": 2}}, wait_for_metadata=True)
    with closing(producer(settings, client_id="p")) as sender:
        for offset in range(5):
            letter = letter_of(Click(offset=offset))
            sender.send(topic, letter.value, letter.key, list(letter.headers), partition=0)
        sender.flush(timeout=10)

    assert [found.offset for found in newest(settings, topic, limit=3)] == [2, 3, 4]
    assert len(newest(settings, topic, limit=100)) == 5


@pytest.mark.kafka
def test_the_newest_dead_letters_are_found_below_the_markers_of_transactions(kafka, topic_names):
    topic = topic_names() + "dlq"
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
    with closing(admin(settings)) as manager:
        manager.create_topics({topic: {"num_partitions": 1}}, wait_for_metadata=True)
    sender = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, transactional_id=topic)
    with closing(sender):
        sender.init_transactions()
        for offset in range(5):
            letter = letter_of(Click(offset=offset))
            sender.begin_transaction()
            sender.send(topic, letter.value, letter.key, list(letter.headers), partition=0)
            sender.flush(timeout=10)
            sender.commit_transaction()

    assert [found.offset for found in newest(settings, topic, limit=3)] == [2, 3, 4]


@pytest.mark.kafka
def test_no_topic_has_no_dead_letters(kafka, topic_names):
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)

    assert newest(settings, topic_names() + "dlq", limit=3) == []
