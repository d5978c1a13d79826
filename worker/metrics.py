"""The worker's Prometheus metrics: one object per process, its registry injected."""

from __future__ import annotations

import platform
import time
from collections import Counter as Counts
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version as package_version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from stream.monitor import LATENCY_BUCKETS, STAGE_BUCKETS, BatchHistogram
from worker.version import ServingVersion

# `commit` is the whole protocol: produce, flush, check every future, commit offsets.
STAGES = ("poll", "decode", "sessions", "encode", "search", "rank", "serialise", "commit")
ROLLBACK_OUTCOMES = ("announced", "failed", "frozen", "withdrawn")
_SIZE_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_PAUSE_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_RESTORE_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class WorkerMetrics:
    """Names, units and labels as documented; labels are bounded, none names a user or an item."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        build_info = self._gauge("build_info", "Version of this program", "version", "python")
        build_info.labels(package_version("nextclick"), platform.python_version()).set(1)
        self._about_clicks()
        self._about_kafka()
        self._about_models()

    def _about_clicks(self) -> None:
        counter, gauge = self._counter, self._gauge
        self.clicks = counter("clicks", "Clicks with an outcome, repeats not counted")
        self.recommendations = counter("recommendations", "Answered clicks", "source")
        self.repeated = counter("recommendations_repeated", "Clicks answered again after a replay")
        self.skipped = counter("clicks_skipped", "Clicks left unanswered on purpose", "reason")
        self.dead_letters = counter("dead_letters", "Records that are no usable click", "reason")
        self.fallbacks = counter("fallbacks", "Answers that are not the full model's", "step")
        self.unknown_items = counter("unknown_items", "Clicks on items that no version names yet")
        self.latency = BatchHistogram(
            "nextclick_recommendation_latency_seconds",
            "Click append to commit of its recommendation",
            LATENCY_BUCKETS,
            self._registry,
        )
        self.stage = self._histogram("stage_duration_seconds", "Per batch", STAGE_BUCKETS, "stage")
        self.batch = self._histogram("batch_clicks", "Clicks per batch", _SIZE_BUCKETS)
        self.sessions = gauge("sessions", "Users in memory")
        self.evicted = counter("sessions_evicted", "Users dropped from memory", "reason")
        self.reencoded = counter("sessions_reencoded", "States rebuilt after a swap")
        self.evaluated = counter("next_click_evaluated", "Clicks that had a list before", "arm")
        self.hits = counter("next_click_hits", "Of these, clicks on an item of that list", "arm")

    def _about_kafka(self) -> None:
        counter, gauge = self._counter, self._gauge
        self.lag = gauge("consumer_lag_records", "Clicks behind the end", "topic", "partition")
        self.lag_seconds = gauge(
            "consumer_lag_seconds", "Age of the last click read while behind", "topic", "partition"
        )
        self.stalled_seconds = gauge(
            "partition_stalled_seconds", "Clicks wait, none is fetched", "topic", "partition"
        )
        self.breaker_open = gauge("worker_breaker_open", "1: stopped for too many dead letters")
        self.assigned = gauge("assigned_partitions", "Partitions held")
        self.last_poll = gauge("last_poll_timestamp_seconds", "When the last poll returned")
        self.rebalances = counter("rebalances", "Changes of the assignment", "kind")
        self.restore = self._histogram("restore_duration_seconds", "Per restore", _RESTORE_BUCKETS)
        self.commit_failures = counter("commit_failures", "Failed batches", "reason")
        self.renewals = counter("producer_renewals", "Producers that took over from another")

    def _about_models(self) -> None:
        counter, gauge = self._counter, self._gauge
        self.model_info = gauge("model_info", "The serving model", "name", "version", "encoder")
        self.model_created = gauge("model_created_timestamp_seconds", "When it was published")
        self.model_loads = counter("model_loads", "Announced versions", "outcome", "reason")
        self.rollbacks = counter(
            "model_rollbacks", "Versions given up for the one before", "outcome"
        )
        for outcome in ROLLBACK_OUTCOMES:
            self.rollbacks.labels(outcome)  # from 0 on: one that begins at 1 shows no increase
        self.swap_pause = self._histogram("model_swap_pause_seconds", "Per swap", _PAUSE_BUCKETS)
        self.index_items = gauge("index_items", "Searchable items", "part")
        self.index_recall = gauge("index_recall_ratio", "Recall@k against exact search, live")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"nextclick_{name}", text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"nextclick_{name}", text, labels, registry=self._registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(
            f"nextclick_{name}", text, labels, buckets=buckets, registry=self._registry
        )

    def count(self, first_outcomes: Counts[tuple[str, str]], *, num_records: int) -> None:
        """Count a batch's first outcomes; the rest of its `num_records` had one before.

        clicks = recommendations + dead letters + skipped, at any time.
        """
        num = first_outcomes.total()
        self.clicks.inc(num)
        self.repeated.inc(num_records - num)
        for (outcome, reason), count in first_outcomes.items():
            if outcome == "dead":
                self.dead_letters.labels(reason).inc(count)
            elif outcome == "skipped":
                self.skipped.labels(reason).inc(count)
            else:
                self.recommendations.labels(reason).inc(count)

    def swapped(self, version: ServingVersion, pause_seconds: float) -> None:
        """Note the version that serves from now on, and how long the stream stood still for it."""
        manifest = version.bundle.manifest
        self.model_info.clear()
        self.model_info.labels(manifest.name, version.name, version.encoder_version).set(1)
        self.model_created.set(manifest.created_at / 1000)
        self.index_items.labels("main").set(len(version.bundle.catalogue))
        self.swap_pause.observe(pause_seconds)

    def forget_partition(self, topic: str, partition: int) -> None:
        """Remove the series of a partition that is no longer ours."""
        for gauge in (self.lag, self.lag_seconds, self.stalled_seconds):
            with suppress(KeyError):
                gauge.remove(topic, str(partition))


class StageClock:
    """Time the stages of a batch: each lap ends one and starts the next."""

    def __init__(
        self, metrics: WorkerMetrics, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self._now = now
        self._children = {stage: metrics.stage.labels(stage) for stage in STAGES}
        self._last = now()

    def start(self) -> None:
        """Start the first stage of a batch."""
        self._last = self._now()

    def lap(self, stage: str) -> None:
        """End `stage`; raises KeyError for an unknown one."""
        now = self._now()
        self._children[stage].observe(now - self._last)
        self._last = now
