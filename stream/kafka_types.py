"""The client's types and errors that other packages name: their only door to kafka-python."""

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

__all__ = [
    "ConsumerRecord",
    "KafkaConsumer",
    "KafkaError",
    "KafkaProducer",
    "NoOffsetForPartitionError",
    "OffsetOutOfRangeError",
    "TopicPartition",
]
