"""A bounded sample of learnt windows that favours recent ones; knows no session and no clock."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.windows import WIDTH, Windows, empty


class ReplayBuffer:
    """Biased reservoir (Aggarwal, VLDB 2006): a full buffer overwrites random windows.

    The chance that a window is still there halves every 0.69 * capacity windows.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        self._rows: NDArray[np.int32] = np.zeros((0, WIDTH), np.int32)
        self._lengths: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._first: NDArray[np.uint8] = np.zeros(0, np.uint8)

    def __len__(self) -> int:
        return self._size

    def add(self, windows: Windows, rng: np.random.Generator) -> None:
        """Remember windows, each in a free place or over a random earlier one."""
        if not len(windows):
            return
        free = min(self._capacity - self._size, len(windows))
        self._reserve(self._size + free)
        slots_B = np.concatenate(
            [
                np.arange(self._size, self._size + free),
                rng.integers(self._capacity, size=len(windows) - free),
            ]
        )
        width = windows.rows_BT.shape[1]
        self._rows[slots_B, :width] = windows.rows_BT
        self._rows[slots_B, width:] = 0
        self._lengths[slots_B] = windows.lengths_B
        self._first[slots_B] = windows.first_B
        self._size += free

    def sample(self, targets: int, rng: np.random.Generator) -> Windows:
        """Draw windows with about `targets` targets, with replacement."""
        if not self._size or targets <= 0:
            return empty()
        sizes = self._lengths[: self._size].astype(np.int64) - self._first[: self._size]
        slots_B = rng.integers(self._size, size=max(1, round(targets / float(sizes.mean()))))
        lengths_B = self._lengths[slots_B].astype(np.int64)
        return Windows(
            self._rows[slots_B, : int(lengths_B.max())].astype(np.int64),
            lengths_B,
            self._first[slots_B].astype(np.int64),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return the content for a checkpoint."""
        return {
            "rows": torch.from_numpy(self._rows[: self._size].copy()),
            "lengths": torch.from_numpy(self._lengths[: self._size].copy()),
            "first": torch.from_numpy(self._first[: self._size].copy()),
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take over the content of a checkpoint, cut to the capacity."""
        self._rows = tensors["rows"].numpy()[: self._capacity].copy()
        self._lengths = tensors["lengths"].numpy()[: self._capacity].copy()
        self._first = tensors["first"].numpy()[: self._capacity].copy()
        self._size = len(self._rows)

    def _reserve(self, size: int) -> None:
        if size <= len(self._rows):
            return
        extra = min(max(size, 2 * len(self._rows), 1024), self._capacity) - len(self._rows)
        self._rows = np.pad(self._rows, ((0, extra), (0, 0)))
        self._lengths = np.pad(self._lengths, (0, extra))
        self._first = np.pad(self._first, (0, extra))
