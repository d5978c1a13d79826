"""The catalogue: item id to row and back, append-only; knows no vectors.

Rows are positions in one version's item matrix; messages and changelogs carry ids, never rows.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

MAX_ID_BYTES: Final = 128


class Catalogue:
    """Unique item ids in row order; immutable, `extended` returns a larger one."""

    __slots__ = ("_digest", "_ids", "_row_of")

    def __init__(self, ids: Sequence[str]) -> None:
        """Raise ValueError for an id that no click could carry, or that comes twice."""
        self._ids = list(ids)
        self._row_of = dict(zip(self._ids, range(len(self._ids)), strict=True))
        self._digest: str | None = None
        _check(self._ids, "row")
        if len(self._row_of) != len(self._ids):
            raise ValueError("an item id comes twice")

    @property
    def ids(self) -> Sequence[str]:
        """Item ids in row order; not to be changed."""
        return self._ids

    @property
    def digest(self) -> str:
        """The sha256 of `to_json`: equal catalogues map the same ids to the same rows."""
        if self._digest is None:
            self._digest = hashlib.sha256(self.to_json()).hexdigest()
        return self._digest

    def __len__(self) -> int:
        return len(self._ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Catalogue) and self._ids == other._ids

    def __hash__(self) -> int:
        return hash(self.digest)

    def row(self, item_id: str) -> int:
        """Return the item's row, or -1."""
        return self._row_of.get(item_id, -1)

    def rows(self, item_ids: Iterable[str]) -> NDArray[np.int64]:
        """Return the items' rows, -1 for unknown ones."""
        row_of = self._row_of
        return np.fromiter((row_of.get(item_id, -1) for item_id in item_ids), np.int64)

    def extended(self, new_ids: Sequence[str]) -> Self:
        """Return a catalogue with `new_ids` in the rows after the last; ValueError as at first."""
        larger = type(self).__new__(type(self))
        larger._ids = self._ids + list(new_ids)
        larger._row_of = self._row_of | dict(
            zip(new_ids, range(len(self), len(larger._ids)), strict=True)
        )
        larger._digest = None
        _check(new_ids, "new id")
        if len(larger._row_of) != len(larger._ids):
            raise ValueError("an item id comes twice")
        return larger

    def extends(self, other: "Catalogue") -> bool:
        """Return whether every row of `other` means the same item here."""
        return len(other) <= len(self) and self._ids[: len(other)] == other._ids

    def to_json(self) -> bytes:
        """Return the ids in row order as a JSON array."""
        return msgspec.json.encode(self._ids)

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Return the catalogue in `data`; raises ValueError when it holds none."""
        return cls(msgspec.json.decode(data, type=list[str]))


def _check(ids: Sequence[str], place: str) -> None:
    for number, item_id in enumerate(ids):
        # Nearly every id is plain: the full rule is only asked about the others.
        plain = item_id.isascii() and item_id.isprintable() and 0 < len(item_id) <= MAX_ID_BYTES
        if not plain and not _valid(item_id):
            raise ValueError(f"{place} {number}: {item_id[:40]!a} is not a valid item id")


def _valid(item_id: str) -> bool:
    if not item_id.isprintable() or not unicodedata.is_normalized("NFC", item_id):
        return False
    return 0 < len(item_id.encode(errors="replace")) <= MAX_ID_BYTES
