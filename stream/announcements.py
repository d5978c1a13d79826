"""Model announcements: send one, and read the latest of a name; knows no files of a model."""

from __future__ import annotations

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from stream.changelog import read_to_end
from stream.decoding import DecodeError
from stream.messages import ModelAnnouncement, decode_announcement, encode
from stream.positions import end_offsets


def key_of(name: str, kind: str = "bundle") -> bytes:
    """Return the key under which compaction keeps the latest announcement."""
    return f"{name}/{kind}".encode()


def announce(
    producer: KafkaProducer, topic: str, announcement: ModelAnnouncement, *, timeout_seconds: float
) -> None:
    """Send an announcement and wait until every replica has it; raises the Kafka error if not."""
    key = key_of(announcement.name, announcement.kind)
    future = producer.send(topic, value=encode(announcement), key=key, partition=0)
    producer.flush(timeout=timeout_seconds)
    future.get(timeout=timeout_seconds)  # type: ignore[no-untyped-call]


def latest(reader: KafkaConsumer, topic: str, name: str) -> ModelAnnouncement | None:
    """Return the last bundle announced under a name, None where there is none.

    Unreadable announcements are passed over: the one before them is still a model.
    """
    partition = TopicPartition(topic, 0)
    ends = end_offsets(reader, [partition])
    found = None
    for record in read_to_end(reader, ends, between_slices=lambda: True):
        if record.key != key_of(name):
            continue
        try:
            found = decode_announcement(record.value)
        except DecodeError:
            continue
    return found
