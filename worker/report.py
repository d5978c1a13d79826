"""What a verification counts and finds wrong; it knows no topic."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

_MAX_VIOLATIONS = 1000


@dataclass
class Report:
    """What was counted, and every violation in words (the first thousand).

    `before_start` are clicks before the group's first; `stale_generations` are answers that a
    member wrote after a newer one had; `open_transactions` says how many seconds each is open.
    """

    clicks: int = 0
    recommendations: int = 0
    dead_letters: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    repeated: int = 0
    pending: int = 0
    before_start: int = 0
    stale_generations: int = 0
    sessions: int = 0
    states: int = 0
    model_versions: list[str] = field(default_factory=list)
    guarantees: Counter[str] = field(default_factory=Counter)
    open_transactions: dict[str, float] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def violate(self, text: str) -> None:
        """Add a violation."""
        if len(self.violations) < _MAX_VIOLATIONS:
            self.violations.append(text)
