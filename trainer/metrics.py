"""The trainer's Prometheus metrics; knows names and labels, measures nothing itself."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from stream.messages import ModelAnnouncement

_STEP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class TrainerMetrics:
    """One object per process; all labels are bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.clicks = self._counter("clicks", "Clicks read.")
        self.clicks_skipped = self._counter("clicks_skipped", "Clicks that do not train.", "reason")
        self.step_seconds = Histogram(
            "nextclick_trainer_step_seconds",
            "Duration of one learning step.",
            buckets=_STEP_BUCKETS,
            registry=registry,
        )
        self.loss = self._gauge("trainer_loss", "Loss of the last step.")
        self.prequential_ratio = self._gauge(
            "trainer_prequential_ratio",
            "Quality on clicks before they were learnt, since the last version; `serving_` metrics "
            "are the serving version's on the same clicks.",
            "metric",
        )
        self.models_published = self._counter(
            "trainer_models_published", "Versions announced.", "kind"
        )
        self.delta_rows = self._gauge(
            "trainer_delta_rows", "Item rows in the last delta, moved and new ones."
        )
        self.deltas_refused = self._counter(
            "trainer_deltas_refused", "Deltas whose values must not serve.", "reason"
        )
        self.gate_verdicts = self._counter(
            "trainer_gate_verdicts", "Judgements of candidates.", "verdict", "reason"
        )
        self.batches_skipped = self._counter(
            "trainer_batches_skipped", "Batches dropped instead of learnt.", "reason"
        )
        self.drifts = self._counter(
            "trainer_drifts", "Times that the hit rate before learning fell below what was usual."
        )
        self.checkpoint_timestamp = self._gauge(
            "trainer_checkpoint_timestamp_seconds", "When the last checkpoint was written."
        )
        self._add_of_both_roles()

    def _add_of_both_roles(self) -> None:
        """Add what a worker exports under the same names."""
        self.lag_records = self._gauge(
            "consumer_lag_records", "Clicks not yet read.", "topic", "partition"
        )
        self.last_poll_timestamp = self._gauge(
            "last_poll_timestamp_seconds", "When the last poll returned."
        )
        self.model_info = self._gauge(
            "model_info", "The version announced last.", "name", "version", "encoder"
        )
        self.model_created_timestamp = self._gauge(
            "model_created_timestamp_seconds", "When that version was made."
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"nextclick_{name}", text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"nextclick_{name}", text, labels, registry=self._registry)

    def show_model(self, sent: ModelAnnouncement) -> None:
        """Replace the info series by the announced version's."""
        self.model_info.clear()
        self.model_info.labels(sent.name, sent.version, sent.encoder_version).set(1)
        self.model_created_timestamp.set(sent.created_at / 1000)
