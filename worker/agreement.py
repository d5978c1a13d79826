"""Whether a partition's changelog and its committed offset agree; decides nothing."""

from __future__ import annotations

from dataclasses import dataclass

from stream.changelog import Marker
from stream.kafka_types import TopicPartition
from stream.positions import Position


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the group and the changelog say that a clicks partition stands.

    `changelog_start` is the first offset that the changelog still has. Compaction leaves it where
    it is: it moves only when records are deleted by hand or by a wrong cleanup policy.
    """

    partition: TopicPartition
    position: Position
    marker: Marker | None
    changelog_start: int

    @property
    def committed(self) -> int:
        """The committed offset; without one the offset at which the group is to begin."""
        return self.position.offset - self.position.gap

    @property
    def is_first_start(self) -> bool:
        """Whether there is nothing yet: a first start writes a marker, then commits its offset."""
        begun = self.marker is not None and (self.marker.seen or self.marker.unfinished)
        return not self.position.committed and not begun

    @property
    def agrees(self) -> bool:
        """Whether the sessions are whole, and as far as the committed offset."""
        if self.is_first_start:
            return True
        if self.marker is None or self.changelog_start > self.marker.changelog_start:
            return False
        if not self.position.committed:
            return self.marker.next_offset == self.position.offset
        return self.marker.agrees_with(self.committed)

    @property
    def difference(self) -> str:
        """In what they disagree."""
        marker = self.marker
        committed = f"committed offset {self.committed}"
        if not self.position.committed:
            committed = "its consumer group has no committed offset"
        if marker is None:
            sessions = "there is no changelog of its sessions"
        elif marker.unfinished:
            sessions = "a rebuild of its sessions was not finished"
        elif self.changelog_start > marker.changelog_start:
            sessions = f"the changelog of its sessions lacks records before {self.changelog_start}"
        else:
            sessions = f"its sessions reach up to {marker.next_offset}"
        return f"{self.partition.topic}/{self.partition.partition}: {committed}, but {sessions}"

    @property
    def ways_out(self) -> str:
        """What an operator can do about it."""
        return (
            "The changelog was deleted or cut, or the offsets were moved. Set the group's offset "
            "to where the sessions are, or start `nextclick worker` once with "
            "--rebuild-from-events to make the sessions anew from the clicks, or with "
            "--accept-mismatch to go on with the sessions as they are"
        )
