"""What became of every click offset of one partition: the counts behind the changelog's marker."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from stream.changelog import AT_LEAST_ONCE, EXACTLY_ONCE, Marker, Rebuilt


@dataclass(slots=True)
class Ledger:
    """Cumulative outcomes of a partition; an offset is counted once, however often it is read.

    `next_offset` is one past the highest offset with an outcome. After a crash the committed offset
    may lie below it: clicks in between are repeats, answered again and counted no more, and the
    ledger is `behind` until they are through. It is `on_record` when the changelog has it already.
    """

    next_offset: int = 0
    log_time: int = 0
    seen: int = 0
    recommended: int = 0
    dead: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    start: int = 0
    lost: int = 0
    exact_from: int = 0
    changelog_start: int = 0
    rebuilt: Rebuilt | None = None
    behind: bool = field(default=False, compare=False)
    on_record: bool = field(default=False, compare=False)

    @classmethod
    def begun_at(cls, offset: int, rebuilt: Rebuilt | None = None) -> Ledger:
        """Return the empty ledger of a partition whose first click to be read is at `offset`."""
        return cls(next_offset=offset, start=offset, exact_from=offset, rebuilt=rebuilt)

    @classmethod
    def restored(cls, marker: Marker, log_end: int = 0) -> Ledger:
        """Return the ledger that `marker` recorded.

        What was committed at least once may have left outcomes of any click below `log_end`.
        """
        exact = marker.guarantee == EXACTLY_ONCE
        return cls(
            *(marker.next_offset, marker.log_time, marker.seen, marker.recommended, marker.dead),
            *(Counter(marker.skipped), marker.start, marker.lost),
            marker.exact_from if exact else max(marker.next_offset, log_end),
            *(marker.changelog_start, marker.rebuilt),
            on_record=True,
        )

    def copy(self) -> Ledger:
        """Return an independent copy: a batch works on one until it is committed."""
        return replace(self, skipped=Counter(self.skipped))

    def resume(self, offset: int) -> int:
        """Go on at `offset`; returns how many clicks in between were never read and are lost.

        From below `next_offset` on, clicks are answered again.
        """
        lost = max(0, offset - self.next_offset)
        self.next_offset += lost
        self.lost += lost
        self.on_record &= not lost
        self.behind = offset < self.next_offset
        if self.behind:
            self.exact_from = max(self.exact_from, self.next_offset)
        return lost

    def is_repeat(self, offset: int) -> bool:
        """Tell whether the click at `offset` already has its outcome."""
        return offset < self.next_offset

    def enter(self, offset: int, outcome: str, reason: str) -> bool:
        """Count the outcome of the click at `offset` unless it has one; tells whether it had none.

        `outcome` is recommended, dead or skipped. Offsets come in log order.
        """
        self.behind = offset + 1 < self.next_offset
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

    def marker(self, generation: int, version: str, guarantee: str = AT_LEAST_ONCE) -> Marker:
        """Return the changelog's marker of this state, committed under `guarantee`.

        While the ledger is behind, what is committed with it is a repeat: the marker is ahead of
        the offset and says at_least_once, whatever protocol commits it.
        """
        exact = guarantee == EXACTLY_ONCE and not self.behind
        return Marker(
            next_offset=self.next_offset,
            generation=generation,
            version=version,
            log_time=self.log_time,
            seen=self.seen,
            recommended=self.recommended,
            dead=self.dead,
            skipped=dict(self.skipped),
            guarantee=EXACTLY_ONCE if exact else AT_LEAST_ONCE,
            start=self.start,
            lost=self.lost,
            exact_from=self.exact_from if exact else self.next_offset,
            changelog_start=self.changelog_start,
            rebuilt=self.rebuilt,
        )
