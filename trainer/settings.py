"""What can be set on the trainer; the values travel nowhere except into the bundle's manifest."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from model.manifest import CHANNELS, Channel


class LearningSettings(BaseModel):
    """Encoder size, loss and optimisers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: Literal["cnn", "gru", "lstm", "mingru", "mlp"] = Field(
        "gru", description="Session encoder of a new model."
    )
    dim: int = Field(128, ge=4, le=1024, description="Dimensions of item vectors and queries.")
    dropout: float = Field(0.4, ge=0, lt=1, description="Dropout on item inputs while learning.")
    window: int = Field(
        20, ge=1, le=20, description="Items from which a session is re-encoded after a swap."
    )
    temperature: float = Field(12.0, gt=0, le=100, description="Factor on cosine scores.")
    loss: Literal["softmax", "bpr_max"] = Field(
        "softmax", description="Sampled softmax with logQ, or BPR-max over the same candidates."
    )
    bpreg: float = Field(
        0.1, ge=0, le=10, description="BPR-max: what the squares of negative scores cost."
    )
    hard_negatives: int = Field(
        0, ge=0, le=65_536, description="Hardest candidates that count once more; 0: off."
    )
    item_rate: float = Field(0.03, gt=0, le=1, description="Row-wise Adagrad rate of item vectors.")
    dense_rate: float = Field(0.002, gt=0, le=1, description="Adam rate of the encoder.")
    clip_norm: float = Field(1.0, gt=0, description="Gradient norm to which the encoder is cut.")
    max_gradient_norm: float = Field(
        100.0, gt=0, description="Encoder gradient norm above which a batch is dropped."
    )
    negatives: int = Field(
        1024, ge=1, le=65_536, description="Negatives drawn per batch of the stream."
    )
    first_negatives: int = Field(
        8192, ge=1, le=65_536, description="Negatives per batch of a first training from a log."
    )
    full_softmax_items: int = Field(
        5000, ge=0, description="Catalogue size up to which every item is a candidate."
    )
    count_half_life_hours: float = Field(
        72.0, gt=0, description="Half-life of the click counts behind negatives and popularity."
    )
    accumulator_halving_clicks: int = Field(
        5_000_000,
        ge=1,
        description="Clicks after which Adagrad sums are halved, or learning would die out.",
    )


class DatasetSettings(BaseModel):
    """How the stream of clicks becomes batches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    idle_gap_minutes: float = Field(
        30.0, gt=0, le=10_080, description="A longer pause between two clicks starts a session."
    )
    ttl_days: float = Field(
        30.0, gt=0, le=3_650, description="Clicks older than this do not train."
    )
    max_open_sessions: int = Field(
        200_000, ge=1, description="Users remembered; the longest idle are forgotten first."
    )
    max_items: int = Field(2_000_000, ge=1, description="Catalogue bound; later items are ignored.")
    admission_clicks: int = Field(
        1, ge=1, description="Clicks after which an unknown item enters the catalogue."
    )
    user_clicks_per_hour: int = Field(
        50, ge=1, description="Clicks of one user and hour that train; the rest are ignored."
    )
    batch_targets: int = Field(
        1024, ge=1, le=65_536, description="Targets of one learning step, replay included."
    )
    batch_seconds: float = Field(
        60.0, gt=0, le=60, description="Longest wait before a smaller batch is learnt."
    )
    replay_windows: int = Field(100_000, ge=1, description="Capacity of the replay buffer.")
    replay_share: float = Field(
        0.4, ge=0, le=0.9, description="Part of each batch drawn from the replay buffer."
    )


class FusionSettings(BaseModel):
    """Which channels are joined, the memory of clicks, and the examples that fit the ranker."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[Channel, ...] = Field(
        CHANNELS,
        min_length=1,
        description="Channels that bring candidates; rnn alone is the search by vector, unranked.",
    )
    max_clicks: int = Field(
        2_097_152, ge=1, description="Clicks remembered for session neighbours and rules."
    )
    max_examples: int = Field(
        12_000, ge=1, description="Predicted clicks kept to fit the ranker on, 6 KB each."
    )
    first_examples: int = Field(
        30_000,
        ge=1,
        description="The same for a first training from a log, which keeps the latest.",
    )
    max_step_examples: int = Field(
        64, ge=1, description="Clicks of one learning step that become examples, 0.3 ms each."
    )
    min_examples: int = Field(
        300, ge=1, description="New examples before the ranker is fitted again."
    )

    @field_validator("channels")
    @classmethod
    def _once_each_in_order(cls, channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
        return tuple(name for name in CHANNELS if name in channels)


class GateSettings(BaseModel):
    """When a candidate may replace the version that serves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    margin: float = Field(
        0.03, gt=0, description="Loss of prequential MRR, as a share, that is no reason to refuse."
    )
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="How sure it must be that the loss is within the margin."
    )
    min_clicks: int = Field(
        500, ge=0, description="Clicks both must have scored before they are compared."
    )
    max_extensions: int = Field(
        10,
        ge=0,
        description="Cadences to wait for more clicks; then the likelier decides, and few clicks "
        "are no obstacle any more.",
    )
    min_coverage_ratio: float = Field(
        0.8, ge=0, le=1, description="Least coverage@20 as a share of the serving version's."
    )
    max_popularity_ratio: float = Field(
        1.25,
        gt=0,
        description="Most mean clicks of listed items as a share of the serving version's, unless "
        "the candidate is surely better.",
    )
    max_norm_deviation: float = Field(
        1e-3, gt=0, description="Largest distance of an item vector's length from one."
    )
    canary_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the users who try an accepted version before it serves; 0: it serves "
        "at once.",
    )
    canary_seconds: float = Field(
        300.0, gt=0, description="Time for which it is tried; then it serves, unless withdrawn."
    )


class TrainerSettings(BaseModel):
    """The trainer's loop and everything it owns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        "default", min_length=1, max_length=128, description="Name of the model to publish."
    )
    checkpoint_dir: Path = Field(
        Path("nextclick-checkpoints"), description="Folder of the trainer's own state."
    )
    checkpoint_seconds: float = Field(60.0, gt=0, description="Time between two checkpoints.")
    publish_seconds: float = Field(900.0, gt=0, description="Longest time between two bundles.")
    publish_clicks: int = Field(100_000, ge=1, description="Most clicks between two bundles.")
    delta_seconds: float = Field(
        60.0, gt=0, description="Time between two deltas: moved rows, new items and fresh clicks."
    )
    max_delta_rows: int = Field(
        20_000,
        ge=0,
        description="Most item rows that a delta moves; those moved furthest go first.",
    )
    first_publish_clicks: int = Field(
        1000, ge=1, description="Clicks learnt before a new model publishes its first bundle."
    )
    keep_bundles: int = Field(5, ge=1, description="Published bundles kept in the store.")
    stream_rate: float = Field(
        1.0, gt=0, le=1, description="Share of the learning rates that the stream learns with."
    )
    max_predictions: int = Field(
        256, ge=1, description="Clicks of one batch that are predicted before they are learnt."
    )
    poll_records: int = Field(500, ge=1, description="Most clicks of one poll.")
    start_from: Literal["earliest", "latest"] = Field(
        "earliest", description="Where a partition without an offset in the checkpoint starts."
    )
    max_model_bytes: int = Field(
        4_000_000_000, ge=1, description="Largest bundle that a warm start will read."
    )
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    learning: LearningSettings = LearningSettings()
    dataset: DatasetSettings = DatasetSettings()
    fusion: FusionSettings = FusionSettings()
    gate: GateSettings = GateSettings()
