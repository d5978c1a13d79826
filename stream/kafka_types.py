"""The client's types and errors that other packages name: their only door to kafka-python."""

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import (
    FencedInstanceIdError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RetriableError,
)
from kafka.structs import ConsumerGroupMetadata

__all__ = [
    "ConsumerGroupMetadata",
    "ConsumerRecord",
    "FencedInstanceIdError",
    "KafkaConsumer",
    "KafkaError",
    "KafkaProducer",
    "NoOffsetForPartitionError",
    "OffsetOutOfRangeError",
    "RetriableError",
    "TopicPartition",
]
