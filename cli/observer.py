"""Reads a demo's topics back, as any other consumer would, and keeps the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli.scoreboard import Answer, Click, Scoreboard
from stream.decoding import DecodeError
from stream.headers import provenance
from stream.kafka_types import ConsumerRecord, KafkaConsumer, TopicPartition
from stream.messages import decode_announcement, decode_click, decode_recommendation

if TYPE_CHECKING:
    from stream.settings import TopicSettings


@dataclass(frozen=True)
class Announced:
    """The version that was announced last."""

    version: str
    created_ms: int


class Observer:
    """Reads clicks, recommendations and announcements from the beginning."""

    def __init__(self, reader: KafkaConsumer, topics: TopicSettings, board: Scoreboard) -> None:
        self._reader = reader
        self._topics = topics
        self._board = board
        self.announced: Announced | None = None
        both = (topics.clicks, topics.recommendations)
        partitions = [TopicPartition(name, p) for name in both for p in range(topics.partitions)]
        reader.assign([*partitions, TopicPartition(topics.models, 0)])
        reader.seek_to_beginning()

    def poll(self, timeout_ms: int) -> None:
        """Read what is there, waiting at most so long for something."""
        for tp, records in self._reader.poll(timeout_ms=timeout_ms).items():
            for record in records:
                try:
                    self._enter(tp.topic, record)
                except DecodeError:
                    continue  # somebody else's record: the ledger at the end judges it

    def _enter(self, topic: str, record: ConsumerRecord) -> None:
        if topic == self._topics.clicks:
            self._board.add_click(_click(record))
        elif topic == self._topics.recommendations:
            self._board.add_answer(_answer(record))
        else:
            message = decode_announcement(record.value)
            self.announced = Announced(message.version, message.created_at)


def _click(record: ConsumerRecord) -> Click:
    click = decode_click(record.value)
    return Click(
        record.partition,
        record.offset,
        record.timestamp,
        click.user_id,
        click.session_id,
        click.item_id,
    )


def _answer(record: ConsumerRecord) -> Answer:
    origin = provenance(record.headers)
    items = [item.item_id for item in decode_recommendation(record.value).items]
    return Answer(origin.partition, origin.offset, record.timestamp, origin.model, items)
