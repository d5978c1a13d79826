"""Has the client finish a rejoin of its group that it would otherwise forget; knows no partitions.

When changed metadata make the group's leader rejoin, kafka-python takes the reason away as soon as
it has assigned the partitions. A poll that runs out just then is never followed by one that takes
the answer: no partitions, no heartbeats, no error, for ever (D16; Java's KAFKA-9815).
"""

from __future__ import annotations

from kafka import KafkaConsumer


def finish_rejoin(consumer: KafkaConsumer) -> None:
    """Make the next poll go on with a rejoin that has begun; call it after every poll.

    It only acts between polls of one thread, where a rejoin cannot end unseen.
    """
    coordinator = consumer._coordinator  # type: ignore[attr-defined]  # not in the stubs
    if coordinator.rejoining:
        coordinator.request_rejoin()
