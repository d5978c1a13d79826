"""Training windows: short runs of one session's item rows with the positions that carry loss.

Knows no users, no clock and no model. Shapes: B windows, T items per window, S sessions, F clicks
of a flat log.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

CONTEXT = 8  # earlier items that lead into a window without loss (burn-in from a zero state)
CHUNK = 16  # new items of one window
WIDTH = CONTEXT + CHUNK


@dataclass(frozen=True, slots=True)
class Windows:
    """Item rows padded with 0; item `t` is a target when `first_B <= t < lengths_B`."""

    rows_BT: Int64
    lengths_B: Int64
    first_B: Int64

    def __len__(self) -> int:
        return len(self.lengths_B)

    @property
    def sizes(self) -> Int64:
        """Clicks to be predicted, window by window [B]."""
        return self.lengths_B - self.first_B

    @property
    def num_targets(self) -> int:
        """Clicks to be predicted."""
        return int(self.sizes.sum())

    @property
    def target_mask(self) -> Bool:
        """Mark the positions [B, T] of targets; the query for position `t` comes from `t - 1`."""
        position_T = np.arange(self.rows_BT.shape[1])
        return np.asarray(
            (position_T >= self.first_B[:, None]) & (position_T < self.lengths_B[:, None])
        )

    @property
    def target_rows(self) -> Int64:
        """Rows of all targets [M], window by window."""
        return self.rows_BT[self.target_mask]

    def select(self, indices: Int64 | Bool) -> "Windows":
        """Take some windows, trimmed to their longest."""
        lengths_B = self.lengths_B[indices]
        width = int(lengths_B.max(initial=0))
        return Windows(self.rows_BT[indices, :width], lengths_B, self.first_B[indices])


def empty() -> Windows:
    """Return no windows."""
    none = np.zeros(0, np.int64)
    return Windows(np.zeros((0, 0), np.int64), none, none)


def from_lists(rows: Sequence[Sequence[int]], first: Sequence[int]) -> Windows:
    """Pad lists of rows."""
    if not rows:
        return empty()
    lengths_B = np.fromiter((len(window) for window in rows), np.int64, len(rows))
    rows_BT = np.zeros((len(rows), int(lengths_B.max())), np.int64)
    filled_BT = np.arange(rows_BT.shape[1]) < lengths_B[:, None]
    rows_BT[filled_BT] = np.concatenate([np.asarray(window, np.int64) for window in rows])
    return Windows(rows_BT, lengths_B, np.asarray(first, np.int64))


def concatenate(parts: Sequence[Windows]) -> Windows:
    """Join windows of different widths."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return empty()
    width = max(part.rows_BT.shape[1] for part in parts)
    padded = [np.pad(part.rows_BT, ((0, 0), (0, width - part.rows_BT.shape[1]))) for part in parts]
    return Windows(
        np.concatenate(padded),
        np.concatenate([part.lengths_B for part in parts]),
        np.concatenate([part.first_B for part in parts]),
    )


@dataclass(frozen=True, slots=True)
class Spans:
    """Windows as positions in a flat log: items `start..stop`, targets from `target` on."""

    start_B: Int64
    stop_B: Int64
    target_B: Int64

    def __len__(self) -> int:
        return len(self.start_B)

    @property
    def num_targets(self) -> int:
        """Clicks to be predicted."""
        return int((self.stop_B - self.target_B).sum())

    def select(self, indices: Int64 | Bool) -> "Spans":
        """Take some spans."""
        return Spans(self.start_B[indices], self.stop_B[indices], self.target_B[indices])


def cut_sessions(start_S: Int64, stop_S: Int64) -> Spans:
    """Cut sessions of at least two clicks into chunks with context, as the stream would."""
    long_enough_S = stop_S - start_S >= 2  # noqa: PLR2004 - a target and the click before it
    start_S, stop_S = start_S[long_enough_S], stop_S[long_enough_S]
    chunks_S = -(-(stop_S - start_S) // CHUNK)
    first_chunk_S = np.cumsum(chunks_S) - chunks_S
    session_B = np.repeat(np.arange(len(start_S)), chunks_S)
    chunk_B = np.arange(len(session_B)) - first_chunk_S[session_B]
    session_start_B = start_S[session_B]
    new_B = session_start_B + chunk_B * CHUNK
    return Spans(
        start_B=np.maximum(session_start_B, new_B - CONTEXT),
        stop_B=np.minimum(stop_S[session_B], new_B + CHUNK),
        target_B=np.maximum(session_start_B + 1, new_B),
    )


def gather(rows_F: Int64, spans: Spans) -> Windows:
    """Read the rows of some spans from a flat log."""
    lengths_B = spans.stop_B - spans.start_B
    position_BT = spans.start_B[:, None] + np.arange(int(lengths_B.max(initial=0)))
    inside_BT = position_BT < spans.stop_B[:, None]
    rows_BT = np.where(inside_BT, rows_F[np.minimum(position_BT, len(rows_F) - 1)], 0)
    return Windows(rows_BT, lengths_B, spans.target_B - spans.start_B)


def batches_by_length(spans: Spans, targets: int, rng: np.random.Generator) -> list[Int64]:
    """Group spans of nearly equal length into batches of about `targets`, in random order."""
    if not len(spans):
        return []
    lengths_B = spans.stop_B - spans.start_B
    order_B = np.argsort(lengths_B + rng.random(len(spans)) * 1.5, kind="stable")
    batch_B = np.cumsum((spans.stop_B - spans.target_B)[order_B]) // targets
    edges = np.flatnonzero(np.diff(batch_B)) + 1
    groups = np.split(order_B, edges)
    return [groups[group] for group in rng.permutation(len(groups))]
