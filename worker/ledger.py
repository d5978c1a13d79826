"""What became of every click offset of one partition: the counts behind the changelog's marker."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from stream.changelog import Marker


@dataclass(slots=True)
class Ledger:
    """Cumulative outcomes of a partition; an offset is counted once, however often it is read.

    `next_offset` is one past the highest offset with an outcome. After a crash the committed offset
    may lie below it: clicks in between are repeats, answered again and counted no more.
    """

    next_offset: int = 0
    log_time: int = 0
    seen: int = 0
    recommended: int = 0
    dead: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    @classmethod
    def restored(cls, marker: Marker) -> Ledger:
        """Return the ledger that `marker` recorded."""
        return cls(
            *(marker.next_offset, marker.log_time, marker.seen, marker.recommended, marker.dead),
            Counter(marker.skipped),
        )

    def copy(self) -> Ledger:
        """Return an independent copy: a batch works on one until it is committed."""
        return Ledger(
            *(self.next_offset, self.log_time, self.seen, self.recommended, self.dead),
            Counter(self.skipped),
        )

    def is_repeat(self, offset: int) -> bool:
        """Tell whether the click at `offset` already has its outcome."""
        return offset < self.next_offset

    def enter(self, offset: int, outcome: str, reason: str) -> bool:
        """Count the outcome of the click at `offset` unless it has one; tells whether it had none.

        `outcome` is recommended, dead or skipped. Offsets come in log order.
        """
        if self.is_repeat(offset):
            return False
        self.next_offset = offset + 1
        self.seen += 1
        if outcome == "recommended":
            self.recommended += 1
        elif outcome == "dead":
            self.dead += 1
        else:
            self.skipped[reason] += 1
        return True

    def marker(self, generation: int, version: str, guarantee: str = "at_least_once") -> Marker:
        """Return the changelog's marker of this state, committed under `guarantee`."""
        return Marker(
            next_offset=self.next_offset,
            generation=generation,
            version=version,
            log_time=self.log_time,
            seen=self.seen,
            recommended=self.recommended,
            dead=self.dead,
            skipped=dict(self.skipped),
            guarantee=guarantee,
        )
