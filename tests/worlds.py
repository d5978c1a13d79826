"""One partition of all topics in memory, and a worker over it that can crash within a batch."""

import json
from collections import defaultdict
from dataclasses import replace

import numpy as np
from kafka.consumer.fetcher import ConsumerRecord
from prometheus_client import CollectorRegistry

from index.item_index import IndexPlan, ItemIndex
from stream.changelog import MARKER_KEY, Marker, decode, encode_marker, reaches_further
from stream.settings import TopicSettings
from worker.answering import Answering
from worker.evidence import Evidence
from worker.ledger import Ledger
from worker.metrics import WorkerMetrics
from worker.outputs import Writer
from worker.settings import SessionSettings, WorkerSettings
from worker.verify import Verifier

TOPICS = TopicSettings(partitions=1)
NOW_MS = 1_790_000_000_000


def end_of(log):
    return log[-1].offset + 1 if log else 0


class Reader:
    """A consumer without group over topics in memory."""

    def __init__(self, logs):
        self._logs = logs
        self._unread = {}

    def partitions_for_topic(self, topic):
        return {0}

    def end_offsets(self, partitions, timeout_ms):
        return {tp: end_of(self._logs[tp.topic]) for tp in partitions}

    def beginning_offsets(self, partitions, timeout_ms):
        logs = {tp: self._logs[tp.topic] for tp in partitions}
        return {tp: log[0].offset if log else 0 for tp, log in logs.items()}

    def assign(self, partitions):
        self._unread = {tp: self._logs[tp.topic] for tp in partitions}

    def seek_to_beginning(self, *partitions):
        pass

    def poll(self, timeout_ms):
        polled, self._unread = self._unread, {}
        return polled

    def position(self, tp, timeout_ms):
        return end_of(self._logs[tp.topic])

    def close(self):
        pass


class World:
    """One partition's topics, a worker that can crash, and the group's committed offset."""

    def __init__(self, versions, *, max_live=1000, guarantee="at_least_once"):
        self.logs = defaultdict(list)
        self.committed = 0
        self.generation = 1
        self.versions = versions
        self.version = 0
        self.max_live = max_live
        self.guarantee = guarantee
        first = Ledger().marker(-1, "", guarantee)
        self.append("sessions", MARKER_KEY, encode_marker(first), [])
        self.start()

    def reader(self):
        """Return a consumer without group over the topics as they are when it reads."""
        return Reader(self.logs)

    def start(self):
        """Start a worker as after a crash: sessions come from the changelog alone."""
        own = WorkerSettings()
        writer = Writer(
            *(TOPICS, own.ranking), app="app", app_version="1", guarantee=self.guarantee
        )
        metrics = WorkerMetrics(CollectorRegistry())
        rng = np.random.default_rng(0)
        self.worker = Answering(own, writer, metrics, num_partitions=1, rng=rng)
        self.worker.sessions.max_live = self.max_live
        # What a process learns of new items lies in its index, and goes with it.
        self.versions = [
            replace(version, index=ItemIndex.build(version.bundle.vectors_ND, IndexPlan()))
            for version in self.versions
        ]
        self.worker.swap(self.versions[self.version])
        self.generation += 1
        self.restore()

    def restore(self):
        self.worker.sessions.drop(0)
        marker = None
        for entry in map(decode, self.logs["sessions"]):
            if not isinstance(entry, Marker):
                self.worker.place(entry)
            elif reaches_further(entry, marker):
                marker = entry
        assert marker.agrees_with(self.committed)
        self.ledgers = {0: Ledger.restored(marker, end_of(self.logs["clicks"]))}
        self.ledgers[0].resume(self.committed)

    def swap(self):
        self.version = min(self.version + 1, len(self.versions) - 1)
        self.worker.swap(self.versions[self.version])

    def append(self, topic, key, value, headers, timestamp=NOW_MS):
        log = self.logs[topic]
        log.append(
            ConsumerRecord(
                *(topic, 0, 0, end_of(log), timestamp, 1, key, value, headers, None, -1, -1, -1)
            )
        )

    def click(self, user, item, **fields):
        timestamp = NOW_MS + 1000 * len(self.logs["clicks"])
        click = {"user_id": user, "item_id": item, "timestamp": timestamp} | fields
        self.append("clicks", user.encode(), json.dumps(click).encode(), [], timestamp)

    def batch(self, size, *, lost=None):
        """Answer `size` clicks; `lost` is the share of each topic's sends that a fault takes.

        Of a transaction it takes everything.
        """
        if lost is not None and self.guarantee == "exactly_once":
            lost = (1.0, 1.0)
        records = self.logs["clicks"][self.committed : self.committed + size]
        if not records:
            return None
        batch = self.worker.answer(records, self.ledgers, self.generation)
        by_topic = defaultdict(list)
        for send in batch.sends:
            by_topic[send.topic].append(send)
        for topic, sends in by_topic.items():
            share = 0.0 if lost is None else lost[topic == "sessions"]
            for send in sends[: len(sends) - round(share * len(sends))]:
                self.append(topic, send.key, send.value, send.headers)
        if lost is None:
            self.committed = records[-1].offset + 1
            self.ledgers.update(batch.ledgers)
            self.worker.keep(batch, records, NOW_MS / 1000)
        return batch

    def crash_in_batch(self, size, lost):
        self.batch(size, lost=lost)
        self.start()

    def fail_in_batch(self, size, lost):
        batch = self.batch(size, lost=lost)
        if batch is not None:
            self.worker.roll_back(batch)
            if batch.seated.evicted:
                self.restore()

    def finish(self):
        while self.committed < len(self.logs["clicks"]):
            self.batch(7)
        return self.verify()

    def verify(self, **options):
        bundles = {version.name: version.bundle for version in self.versions}
        evidence = Evidence(self.reader(), self.reader(), TOPICS, ttl_days=30)
        verifier = Verifier(evidence, SessionSettings(), bundles.get, **options)
        return verifier.verify({0: self.committed})

    def replace(self, topic, offset, **fields):
        record = self.logs[topic][offset]
        self.logs[topic][offset] = record._replace(**fields) if fields else None
