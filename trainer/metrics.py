"""The trainer's Prometheus metrics; knows names and labels, measures nothing itself."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from stream.messages import ModelAnnouncement

_STEP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class TrainerMetrics:
    """One object per process; all labels are bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.clicks = Counter("nextclick_clicks", "Clicks read.", registry=registry)
        self.clicks_skipped = Counter(
            "nextclick_clicks_skipped",
            "Clicks that do not train, by reason.",
            ["reason"],
            registry=registry,
        )
        self.step_seconds = Histogram(
            "nextclick_trainer_step_seconds",
            "Duration of one learning step.",
            buckets=_STEP_BUCKETS,
            registry=registry,
        )
        self.loss = Gauge("nextclick_trainer_loss", "Loss of the last step.", registry=registry)
        self.prequential_ratio = Gauge(
            "nextclick_trainer_prequential_ratio",
            "Metric on clicks before they were learnt, of the learner since the last bundle and "
            "of the serving version on the same clicks.",
            ["metric"],
            registry=registry,
        )
        self.models_published = Counter(
            "nextclick_trainer_models_published",
            "Model versions announced.",
            ["kind"],
            registry=registry,
        )
        self.gate_verdicts = Counter(
            "nextclick_trainer_gate_verdicts",
            "Judgements of candidates.",
            ["verdict", "reason"],
            registry=registry,
        )
        self.batches_skipped = Counter(
            "nextclick_trainer_batches_skipped",
            "Batches dropped instead of learnt.",
            ["reason"],
            registry=registry,
        )
        self.checkpoint_timestamp = Gauge(
            "nextclick_trainer_checkpoint_timestamp_seconds",
            "When the last checkpoint was written.",
            registry=registry,
        )
        self.lag_records = Gauge(
            "nextclick_consumer_lag_records",
            "Clicks between the position and the end of a partition.",
            ["topic", "partition"],
            registry=registry,
        )
        self.last_poll_timestamp = Gauge(
            "nextclick_last_poll_timestamp_seconds",
            "When the last poll returned.",
            registry=registry,
        )
        self.model_info = Gauge(
            "nextclick_model_info",
            "The version that serves, as far as the trainer knows.",
            ["name", "version", "encoder"],
            registry=registry,
        )
        self.model_created_timestamp = Gauge(
            "nextclick_model_created_timestamp_seconds",
            "When the last announced version was made.",
            registry=registry,
        )

    def show_model(self, sent: ModelAnnouncement) -> None:
        """Replace the info series by the announced version's."""
        self.model_info.clear()
        self.model_info.labels(sent.name, sent.version, sent.encoder_version).set(1)
        self.model_created_timestamp.set(sent.created_at / 1000)
