"""Live sessions in slabs: arrays by slot, no object per user; knows no Kafka and no clock.

Shapes: S slots, H state of the encoder, R ring of last items, E ring of event ids, U touched slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np

from index.candidates import RING

EVENT_RING = 32
EMPTY = -1
_COLUMNS = (
    *("hidden_SH", "ring_SR", "length_S", "time_S", "offset_S", "n_S", "digest_S"),
    *("session_hash_S", "version_S", "events_SE"),
)

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Undo:
    """Before-images of the slots that a batch touches, and the users it created."""

    slots_U: Array
    images: tuple[Array, ...]
    created: list[tuple[int, str]]


class Sessions:
    """Session state of all users of all partitions held here.

    A slot keeps the recurrent state, the last `RING` item codes of the session (circular, by
    `length`), the digest chain over applied clicks and the last applied offset. Item codes are
    catalogue rows, or codes below -1 for items that the catalogue does not name yet.
    """

    def __init__(self, state_dim: int, *, max_live: int, initial: int = 1024) -> None:
        size = min(initial, max_live)
        self.max_live = max_live
        self.hidden_SH: Array = np.zeros((size, state_dim), np.float32)
        self.ring_SR: Array = np.full((size, RING), EMPTY, np.int32)
        self.length_S: Array = np.zeros(size, np.int32)
        self.time_S: Array = np.zeros(size, np.int64)
        self.offset_S: Array = np.full(size, -1, np.int64)
        self.n_S: Array = np.zeros(size, np.int64)
        self.digest_S: Array = np.zeros(size, np.uint32)
        self.session_hash_S: Array = np.zeros(size, np.uint32)
        self.version_S: Array = np.zeros(size, np.int32)
        self.events_SE: Array = np.zeros((size, EVENT_RING), np.uint64)
        self._slots: dict[int, dict[str, int]] = {}
        self._free = list(range(size - 1, -1, -1))

    def __len__(self) -> int:
        """Number of live users."""
        return sum(map(len, self._slots.values()))

    @property
    def num_free(self) -> int:
        """Users that still fit before somebody has to be evicted."""
        return self.max_live - len(self)

    def find(self, partition: int, user_id: str) -> int:
        """Return the user's slot, or -1."""
        return self._slots.get(partition, {}).get(user_id, -1)

    def users(self, partition: int) -> dict[str, int]:
        """Return the partition's users and their slots (read only)."""
        return self._slots.setdefault(partition, {})

    def create(self, partition: int, user_id: str) -> int:
        """Give a new user an empty slot; the caller evicts first when `num_free` is 0."""
        slot = self.scratch()
        self._slots.setdefault(partition, {})[user_id] = slot
        return slot

    def scratch(self) -> int:
        """Return an empty slot that belongs to nobody; `release` it after the batch."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._clear(slot)
        return slot

    def release(self, slot: int) -> None:
        """Take back a scratch slot."""
        self._free.append(slot)

    def remove(self, partition: int, user_id: str) -> None:
        """Forget a user; an unknown one is already forgotten."""
        slot = self._slots.get(partition, {}).pop(user_id, None)
        if slot is not None:
            self._free.append(slot)

    def drop(self, partition: int) -> None:
        """Forget every user of a partition that moved away."""
        self._free.extend(self._slots.pop(partition, {}).values())

    def begin(self, slots_U: Array, created: list[tuple[int, str]]) -> Undo:
        """Take before-images of unique `slots_U`, so that a failed batch leaves no trace."""
        return Undo(slots_U, tuple(a[slots_U] for a in self._arrays()), created)

    def roll_back(self, undo: Undo) -> None:
        """Put every touched slot back as it was before the batch."""
        for array, image in zip(self._arrays(), undo.images, strict=True):
            array[undo.slots_U] = image
        for partition, user_id in undo.created:
            self.remove(partition, user_id)

    def longest_idle(self, count: int) -> list[tuple[int, str]]:
        """Return (partition, user) of the `count` users whose last click is oldest."""
        owners = [
            (p, user, slot) for p, users in self._slots.items() for user, slot in users.items()
        ]
        times = self.time_S[[slot for _, _, slot in owners]]
        count = min(count, len(owners))
        if not count:
            return []
        return [owners[i][:2] for i in np.argpartition(times, count - 1)[:count].tolist()]

    def ordered(self, slots_B: Array) -> tuple[Array, Array]:
        """Return the rings oldest first, left-aligned and EMPTY-padded: codes_BR and lengths_B."""
        lengths_B = np.minimum(self.length_S[slots_B], RING)
        first_B = self.length_S[slots_B] - lengths_B
        steps_R = np.arange(RING)
        places_BR = (first_B[:, None] + steps_R) % RING
        codes_BR = np.take_along_axis(self.ring_SR[slots_B], places_BR, axis=1)
        codes_BR[steps_R >= lengths_B[:, None]] = EMPTY
        return codes_BR, lengths_B

    def set_ring(self, slot: int, codes: list[int], length: int) -> None:
        """Restore a slot's ring from its last items, oldest first, of a session of `length`."""
        first = length - len(codes)
        self.length_S[slot] = length
        for i, code in enumerate(codes):
            self.ring_SR[slot, (first + i) % RING] = code

    def push(self, slots_B: Array, codes_B: Array) -> None:
        """Append one item code to each of the distinct `slots_B`."""
        self.ring_SR[slots_B, self.length_S[slots_B] % RING] = codes_B
        self.length_S[slots_B] += 1

    def start_session(self, slots_B: Array) -> None:
        """Begin a new session in `slots_B`: state and ring are empty again, counts go on."""
        self.hidden_SH[slots_B] = 0.0
        self.ring_SR[slots_B] = EMPTY
        self.length_S[slots_B] = 0

    def duplicate(self, slot: int, event_id: str, offset: int) -> bool:
        """Tell whether another click of the user's last 32 had this `event_id`; remember it.

        The ring keeps 32 bits of hash and of offset: a false duplicate has a chance of 32 in 4
        billion. The offset tells a second delivery of the same click, which is no duplicate, and
        neither is one before the click that is remembered.
        """
        event_hash = np.uint64(hash_of(event_id))
        mark = event_hash << np.uint64(32) | np.uint64(offset & 0xFFFFFFFF)
        ring_E = self.events_SE[slot]
        same = ring_E[ring_E >> np.uint64(32) == event_hash]
        if len(same):
            return bool((same < mark).any())
        if offset > self.offset_S[slot]:
            ring_E[1:] = ring_E[:-1].copy()
            ring_E[0] = mark
        return False

    def translate(self, rows_of: Array) -> None:
        """Rename catalogue rows in all rings: row r becomes `rows_of[r]` (codes < 0 stay)."""
        named = self.ring_SR >= 0
        self.ring_SR[named] = rows_of[self.ring_SR[named]]

    def rename(self, codes: dict[int, int]) -> None:
        """Rename single codes in all rings, old to new."""
        if not codes:
            return
        old = np.fromiter(codes, np.int32, len(codes))
        order = np.argsort(old)
        new = np.fromiter(codes.values(), np.int32, len(codes))[order]
        old = old[order]
        flat = self.ring_SR.reshape(-1)
        below = np.flatnonzero(flat < EMPTY)
        place = np.minimum(np.searchsorted(old, flat[below]), len(old) - 1)
        hit = old[place] == flat[below]
        flat[below[hit]] = new[place[hit]]

    def codes_in_use(self) -> set[int]:
        """Return the codes below -1 that some ring holds."""
        return set(np.unique(self.ring_SR[self.ring_SR < EMPTY]).tolist())

    def resize_state(self, state_dim: int) -> None:
        """Take states of another size; every state has to be re-encoded."""
        self.hidden_SH = np.zeros((len(self.length_S), state_dim), np.float32)
        self.version_S.fill(0)

    def _arrays(self) -> tuple[Array, ...]:
        return tuple(getattr(self, name) for name in _COLUMNS)

    def _clear(self, slot: int) -> None:
        for array in self._arrays():
            array[slot] = 0
        self.ring_SR[slot] = EMPTY
        self.offset_S[slot] = -1

    def _grow(self) -> None:
        old = len(self.length_S)
        # Scratch slots of a batch come on top of the live users.
        added = max(1024, min(old, self.max_live - old))
        for name in _COLUMNS:
            array = getattr(self, name)
            more = np.zeros((added, *array.shape[1:]), array.dtype)
            setattr(self, name, np.concatenate([array, more]))
        self._free.extend(range(old + added - 1, old - 1, -1))


def hash_of(text: str | None) -> int:
    """Return a 32-bit hash that is equal in every process; 0 stands for "none given"."""
    return 0 if text is None else crc32(text.encode()) or 1
