"""The latest sessions of a log: predicted, then learnt, part by part, as the stream would do it.

Knows no Kafka, no files and no clock. What the ranker is fitted on is therefore what it will see:
new items that have been clicked a few times, and vectors that are a little behind.
"""

from itertools import pairwise
from typing import Final

import numpy as np
import torch

from trainer.evaluate import thin
from trainer.fusion_learner import FusionLearner
from trainer.history import History, in_log_order
from trainer.learner import Learner, queries
from trainer.windows import Windows, cut_sessions, gather

_PARTS: Final = 8
_RATE: Final = 0.3
_BESIDE: Final = 8  # clicks before a new item's first one that say where it belongs


def learn_holdout(
    history: History, learner: Learner, fusion: FusionLearner, *, batch_targets: int
) -> None:
    """Learn the held out sessions once, admitting their new items, and fit the ranker on them."""
    _remember(history, fusion, 0, history.holdout_from)
    edges = np.linspace(history.holdout_from, len(history.start_S), _PARTS + 1).astype(int)
    for first, stop in pairwise(edges.tolist()):
        if first == stop:
            continue
        windows = _windows(history, first, stop)
        _observe(learner, fusion, thin(windows, fusion.max_examples // _PARTS))
        _admit(history, learner, stop)
        _learn(learner, windows, batch_targets)
        _remember(history, fusion, first, stop)
    fusion.refit(seed=int(learner.rng.integers(2**31)))


def _windows(history: History, first: int, stop: int) -> Windows:
    return gather(
        history.rows_F, cut_sessions(history.start_S[first:stop], history.stop_S[first:stop])
    )


def _observe(learner: Learner, fusion: FusionLearner, windows: Windows) -> None:
    if len(windows):
        vectors_ND = learner.items.unit_vectors()
        fusion.observe(
            windows, queries(learner.encoder, vectors_ND, windows), vectors_ND, learner.rng
        )


def _admit(history: History, learner: Learner, stop: int) -> None:
    """Add the items that are first clicked before the session `stop`."""
    seen_F = history.rows_F[: history.stop_S[stop - 1]]
    position_of_first = np.unique(seen_F, return_index=True)[1]
    for row in range(len(learner.items), len(position_of_first)):
        position = int(position_of_first[row])
        session = int(np.searchsorted(history.start_S, position, side="right")) - 1
        beside = history.rows_F[history.start_S[session] : position]
        learner.admit(history.item_ids[row], beside[-_BESIDE:].tolist())


def _learn(learner: Learner, windows: Windows, batch_targets: int) -> None:
    # What is popular of late, not over the whole log, is what logQ has to correct for.
    counts_N = np.bincount(windows.target_rows, minlength=len(learner.items))
    learner.sample_by(torch.from_numpy(counts_N))
    batch = max(1, len(windows) * batch_targets // max(windows.num_targets, 1))
    for start in range(0, len(windows), batch):
        chosen = np.arange(start, min(start + batch, len(windows)))
        learner.learn(windows.select(chosen), rate=_RATE, follow_counts=False)


def _remember(history: History, fusion: FusionLearner, first: int, stop: int) -> None:
    clicks = in_log_order(history, first, stop, first=fusion.memory.num_added)
    fusion.remember(clicks.rows_B, clicks.times_B, clicks.before_B)
