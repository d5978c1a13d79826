"""Model announcements: send one, read the latest of a name, restore one; knows no model's files."""

from __future__ import annotations

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaTimeoutError

from stream import clients
from stream.changelog import ChangelogError, read_to_end
from stream.decoding import DecodeError
from stream.messages import Gate, ModelAnnouncement, decode_announcement, encode
from stream.positions import end_offsets
from stream.settings import KafkaSettings

ROLLED_BACK = "rolled_back"
"""The gate's verdict in an announcement by which a worker's guard restores a version."""

_STALL_SECONDS = 10.0


class ModelsTopic:
    """The models topic, by clients that live for one call; every call ends within bounds."""

    def __init__(self, settings: KafkaSettings, topic: str, *, client_id: str) -> None:
        self._settings = settings
        self._topic = topic
        self._client_id = client_id

    def latest(self, name: str, kind: str = "bundle") -> ModelAnnouncement | None:
        """Return the last announcement of a name and kind; raises a KafkaError without a broker."""
        reader = clients.reader(self._settings, client_id=self._client_id)
        try:
            return latest(reader, self._topic, name, kind)
        except ChangelogError as error:
            raise KafkaTimeoutError(f"topic {self._topic} cannot be read: {error}") from error
        finally:
            reader.close()

    def announce(self, announcement: ModelAnnouncement) -> None:
        """Send an announcement and wait until it is stored; raises the Kafka error if not."""
        timeout_seconds = self._settings.delivery_timeout_ms / 1000 + 1
        # A new producer each time: one that failed once must not be used again.
        producer = clients.producer(self._settings, client_id=self._client_id)
        try:
            announce(producer, self._topic, announcement, timeout_seconds=timeout_seconds)
        finally:
            producer.close(timeout=timeout_seconds)


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


def latest(
    reader: KafkaConsumer, topic: str, name: str, kind: str = "bundle"
) -> ModelAnnouncement | None:
    """Return the last announcement of a name and kind, None where there is none.

    Unreadable announcements are passed over: the one before them is still a model.
    """
    partition = TopicPartition(topic, 0)
    ends = end_offsets(reader, [partition])
    found = None
    for record in read_to_end(
        reader, ends, between_slices=lambda: True, stall_seconds=_STALL_SECONDS
    ):
        if record.key != key_of(name, kind):
            continue
        try:
            found = decode_announcement(record.value)
        except DecodeError:
            continue
    return found


def stored_version(announcement: ModelAnnouncement) -> str:
    """Return the version whose files are announced: the restored one, if it restores one."""
    return announcement.restores or announcement.version


def on_trial(announcement: ModelAnnouncement, share: float) -> ModelAnnouncement:
    """Return the announcement by which a share of the users gets the lists of a bundle."""
    return msgspec.structs.replace(announcement, kind="canary", share=share)


def is_tried(trial: ModelAnnouncement, serving: str) -> bool:
    """Whether some users try a version, given the last announced one: withdrawn or old is not."""
    return trial.share > 0 and trial.version > serving


def withdrawn(trial: ModelAnnouncement, reason: str) -> ModelAnnouncement:
    """Return the announcement by which a trial ends for everybody: nobody gets its lists."""
    gate = Gate(verdict=ROLLED_BACK, reason=reason)
    return msgspec.structs.replace(trial, share=0.0, gate=gate)


def restoring(announcement: ModelAnnouncement, version: str, gate: Gate) -> ModelAnnouncement:
    """Return a new version that serves the files of an announced one again.

    `version` must be greater than all before; `gate` says who wants it back, and why.
    """
    return msgspec.structs.replace(
        announcement, version=version, restores=stored_version(announcement), gate=gate
    )
