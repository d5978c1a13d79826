"""Settings of the worker; they know no model hyper-parameters, which travel in the bundle."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from worker.breaker import BreakerSettings
from worker.guard import GuardSettings

_SECTION = ConfigDict(frozen=True, extra="forbid")


class BatchSettings(BaseModel):
    """How many clicks one commit holds."""

    model_config = _SECTION

    max_clicks: int = Field(500, ge=1, le=10_000, description="Most clicks in one batch")
    max_wait_ms: int = Field(50, ge=1, le=5_000, description="Longest wait for the first click, ms")


class SessionSettings(BaseModel):
    """When a session ends and how many are kept."""

    model_config = _SECTION

    idle_gap_minutes: float = Field(
        30.0, gt=0, le=10_080, description="A longer pause between two clicks starts a session"
    )
    ttl_days: float = Field(
        30.0, gt=0, le=3_650, description="Clicks older than this are skipped as ancient"
    )
    max_live: int = Field(
        1_000_000, ge=1_000, description="Most users in memory; the longest idle are evicted"
    )


class RankingSettings(BaseModel):
    """How a list is made of candidates."""

    model_config = _SECTION

    k: int = Field(20, ge=1, le=200, description="Items in every recommendation")
    exclude: Literal["none", "current", "session"] = Field(
        "none", description="Items left out of a list: the clicked one, or all of the session"
    )
    diversity: float = Field(
        0.0, ge=0, lt=1, description="How much an item loses by being like the rest of a list"
    )
    exploration: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of lists whose last item is one that was seldom shown; needs the learnt "
        "ranking, so it does nothing where rnn is the only channel",
    )
    name: str = Field("default", min_length=1, description="Name of this policy in every record")


class WorkerSettings(BaseModel):
    """The worker's own section."""

    model_config = _SECTION

    model: str = Field("default", min_length=1, description="Name of the model to serve")
    batch: BatchSettings = BatchSettings()
    sessions: SessionSettings = SessionSettings()
    ranking: RankingSettings = RankingSettings()
    start_from: Literal["earliest", "latest"] = Field(
        "earliest", description="Where a group without committed offsets begins"
    )
    on_gap: Literal["halt", "continue"] = Field(
        "halt", description="What to do when clicks were deleted before they were answered"
    )
    on_mismatch: Literal["halt", "accept", "rebuild"] = Field(
        "halt",
        description="What to do when the committed offsets and the sessions' changelog disagree: "
        "halt, accept the sessions as they are, or rebuild them from the clicks. For one start",
    )
    breaker: BreakerSettings = BreakerSettings()
    guard: GuardSettings = GuardSettings()
    stall_seconds: float = Field(
        30.0,
        ge=1,
        le=3_600,
        description="A partition whose waiting clicks are not fetched for so long ends the process",
    )
    max_bundle_mib: int = Field(4_096, ge=1, description="Larger bundles are refused")
    recall_sample: float = Field(
        0.01, ge=0, le=1, description="Share of batches whose search is compared with exact search"
    )

    @property
    def max_bundle_bytes(self) -> int:
        """The largest bundle in bytes."""
        return self.max_bundle_mib * 1024 * 1024
