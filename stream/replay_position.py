"""How far the dead letters of one partition are dealt with, overall and per reason; reads nothing.

A replay may choose reasons, so one offset cannot say what is done: letters of other reasons lie in
between. The base is the group's committed offset, what goes further is in the commit's metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

_DECODER: Final = msgspec.json.Decoder(dict[str, int])


class ReplayPosition:
    """All letters below `base` are dealt with, and those of some reasons further.

    Go through the letters in the order of their offsets, from `base`: `settle` or `leave` each.
    """

    def __init__(self, base: int = 0, reasons: Mapping[str, int] | None = None) -> None:
        self.base = base
        self._reasons = dict(reasons or {})
        self._gap = False

    @classmethod
    def decode(cls, offset: int, metadata: str) -> ReplayPosition:
        """Return the position of a commit; metadata that is not ours counts as none."""
        try:
            return cls(offset, _DECODER.decode(metadata))
        except msgspec.DecodeError:
            return cls(offset)

    def encode(self) -> tuple[int, str]:
        """Return the offset and the metadata to commit."""
        further = {reason: at for reason, at in self._reasons.items() if at > self.base}
        return self.base, msgspec.json.encode(further, order="sorted").decode() if further else ""

    def covers(self, offset: int, reason: str) -> bool:
        """Tell whether the letter was dealt with."""
        return offset < max(self.base, self._reasons.get(reason, 0))

    def settle(self, offset: int, reason: str) -> None:
        """Note that the letter is dealt with, as are all of its reason before it."""
        if self._gap:
            self._reasons[reason] = max(self._reasons.get(reason, 0), offset + 1)
        else:
            self.base = max(self.base, offset + 1)

    def leave(self) -> None:
        """Note that a letter is left for another replay."""
        self._gap = True

    def finish(self, end: int) -> None:
        """Note that there is no other letter below `end`."""
        if not self._gap:
            self.base = max(self.base, end)
