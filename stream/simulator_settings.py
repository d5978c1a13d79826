"""The settings of the click simulator; knows nothing of how they are used."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

BEST_LIST = 20
"""Length of the list that `best_hit_rate_n` is stated for."""


class SimulatorSettings(BaseModel):
    """Shape of the simulated world; docs/simulator.md has the formulas."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    users: int = Field(5_000, ge=2, le=50_000_000, description="Number of users.")
    items: int = Field(2_000, ge=20, le=20_000_000, description="Items alive at any time.")
    topics: int = Field(40, ge=2, le=100_000, description="Topics that share the items evenly.")
    active_sessions: int = Field(
        500, ge=1, le=1_000_000, description="Sessions running at once, one per user at most."
    )
    session_length: float = Field(
        12.0, ge=1.0, le=10_000.0, description="Mean clicks of a session (geometric)."
    )
    successors: int = Field(4, ge=1, le=50, description="Items that typically follow an item.")
    successor_share: float = Field(
        0.45, ge=0.0, le=1.0, description="Share of clicks that go to a successor."
    )
    interests: int = Field(3, ge=1, le=50, description="Topics that a user is interested in.")
    interest_share: float = Field(
        0.4, ge=0.0, le=1.0, description="Share of clicks that go to a topic of interest."
    )
    drift: float = Field(
        0.05, ge=0.0, le=1.0, description="Chance that a session starts with a new interest."
    )
    popularity_exponent: float = Field(
        0.9, ge=0.0, le=3.0, description="Zipf exponent of item popularity."
    )
    new_items_per_1000_clicks: float = Field(
        5.0, ge=0.0, le=1_000.0, description="Items that appear, and fade, per 1000 clicks."
    )
    truth: Literal["off", "rate", "list"] = Field(
        "rate",
        description="Truth reported with each click: nothing (load tests), the best reachable"
        " hit rate, or also the best list.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.active_sessions >= self.users:
            raise ValueError(f"active_sessions must be below users ({self.users})")
        if self.interests >= self.topics:
            raise ValueError(f"interests must be below topics ({self.topics})")
        if self.items // self.topics <= self.successors:
            raise ValueError(
                f"a topic holds {self.items // self.topics} items and must hold more than"
                f" successors ({self.successors}): raise items or lower topics"
            )
        if self.successor_share + self.interest_share > 1.0:
            raise ValueError("successor_share + interest_share must not exceed 1")
        return self
