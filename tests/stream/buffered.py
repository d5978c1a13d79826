"""A producer's buffer as the client has it, and a flush that acknowledges what is in it."""

from kafka.producer.record_accumulator import RecordAccumulator

LIMIT = 1 << 20


class Buffer:
    """Mixed into a fake producer: `record_batches.append` puts its batches here."""

    def __init__(self, *, transactions=None, batch_size=LIMIT):
        self.config = {"batch_size": batch_size, "max_request_size": LIMIT}
        self._closed = False
        self._transaction_manager = transactions
        self._accumulator = RecordAccumulator(batch_size=batch_size)

    @property
    def batches(self):
        """What waits, in order."""
        return [batch for queue in self._accumulator._batches.values() for batch in queue]

    def settle(self, error=None):
        """Answer every batch that waits as brokers would; returns how many records there were."""
        waiting = self.batches
        self._accumulator._batches.clear()
        for batch in waiting:
            if error is None:
                batch.complete(0, -1)
            else:
                batch.complete_exceptionally(error, lambda _: error)
        return sum(batch.record_count for batch in waiting)

    def split(self):
        """Cut every batch in two, as the sender does when brokers find it too large."""
        for queue in list(self._accumulator._batches.values()):
            for batch in [queue.popleft() for _ in range(len(queue))]:
                batch.records.close()
                self._accumulator.split_and_reenqueue(batch)
