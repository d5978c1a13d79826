"""What goes into a commit protocol and what comes out; the protocols are in `committer.py`."""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple


class Send(NamedTuple):
    """One record to produce."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Outcome(Enum):
    """What became of a batch, and so what the caller does with its state."""

    KEPT = auto()
    ROLLED_BACK = auto()
    UNKNOWN = auto()
