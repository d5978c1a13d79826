"""Test, then train: clicks in log order are collected, predicted and learnt; knows no Kafka.

Everything it does follows from its state and its calls, so a checkpoint continues exactly.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from model.encoders.session_encoder import SessionEncoder
from trainer.comparison import Comparison
from trainer.dataset import Admission, SessionBuffer
from trainer.drift import DriftWatch
from trainer.evaluate import K, target_ranks, thin
from trainer.fusion_learner import FusionLearner
from trainer.learner import Learner, Step, queries
from trainer.replay import ReplayBuffer
from trainer.settings import TrainerSettings
from trainer.windows import Int64, Windows, concatenate

_RECENT_TARGETS = 2_000
_KEPT_OF_SUMS = 0.25  # of the Adagrad sums after a drift: steps are twice as long again

WaitingClick = tuple[int, int, int]


@dataclass(frozen=True)
class Frozen:
    """A version as it serves: its encoder and unit item vectors, a prefix of the catalogue."""

    encoder: SessionEncoder
    vectors_ND: Tensor


class StreamLearner:
    """Session buffer, replay buffer and learner, joined by one step."""

    def __init__(self, learner: Learner, fusion: FusionLearner, settings: TrainerSettings) -> None:
        self.learner = learner
        self.fusion = fusion
        self.sessions = SessionBuffer(settings.dataset)
        self.admission = Admission(settings.dataset)
        self.replay = ReplayBuffer(settings.dataset.replay_windows)
        self.recent: deque[Windows] = deque()
        self.comparison = Comparison()
        self.drift = DriftWatch()
        self.num_evaluated_items = len(learner.items)
        self._waiting: list[WaitingClick] = []
        self._num_recent = 0
        self._settings = settings
        self._serving: Frozen | None = None
        share = settings.dataset.replay_share
        self._fresh_targets = max(1, round(settings.dataset.batch_targets * (1 - share)))
        self._replay_per_fresh = share / (1 - share)

    @property
    def full(self) -> bool:
        """Whether enough clicks wait for a learning step."""
        return self.sessions.num_targets >= self._fresh_targets

    def serve(self, version: Frozen | None) -> None:
        """Compare with this version from now on."""
        self._serving = version
        self.comparison = Comparison()

    def add(self, user_id: str, session_id: str | None, item_id: str, time_ms: int) -> str | None:
        """Take one click; return the reason when it will not train."""
        session = self.sessions.open(user_id, session_id, time_ms)
        if session is None:
            return "flood"
        row = self.learner.items.row(item_id)
        if row < 0:
            if not self.admission.admits(item_id, len(self.learner.items)):
                return "not_admitted"
            row = self.learner.admit(item_id, session.rows)
        number = self.fusion.memory.num_added + len(self._waiting)
        self._waiting.append((row, time_ms, session.last_click))
        session.last_click = number
        self.sessions.append(user_id, session, row)
        return None

    def step(self, time_ms: int) -> Step | None:
        """Predict, then learn what waits, mixed with replay; None when nothing waits.

        The step's `num_targets` are the clicks that waited, without those replayed.
        """
        clicks_B3 = self.clicks_waiting()
        self._waiting = []
        self.learner.items.count(clicks_B3[:, 0], time_ms)
        windows = self.sessions.take()
        drifted = False
        if len(windows):
            drifted = self._compare(thin(windows, self._settings.max_predictions))
        self.fusion.remember(*clicks_B3.T)
        if not len(windows):
            return None
        replayed = self.replay.sample(
            round(windows.num_targets * self._replay_per_fresh), self.learner.rng
        )
        step = self.learner.learn(concatenate([windows, replayed]), rate=self._settings.stream_rate)
        self.replay.add(windows, self.learner.rng)
        self._keep_recent(windows)
        return replace(step, num_targets=windows.num_targets, drifted=drifted)

    def recent_windows(self) -> Windows:
        """Return the latest learnt windows."""
        return concatenate(list(self.recent))

    def restore_recent(self, parts: Iterable[Windows]) -> None:
        """Take over the latest windows of a checkpoint, or of a log."""
        self.recent = deque(parts)
        self._num_recent = sum(part.num_targets for part in self.recent)

    def clicks_waiting(self) -> Int64:
        """Return the clicks since the last step [B, 3]: row, time, number of the one before."""
        return np.asarray(self._waiting, np.int64).reshape(-1, 3)

    def restore_clicks_waiting(self, clicks_B3: Int64) -> None:
        """Take over waiting clicks of a checkpoint."""
        self._waiting = [tuple(click) for click in clicks_B3.tolist()]

    def _compare(self, windows: Windows) -> bool:
        """Score both versions on the same clicks; an item that neither knew before is a miss.

        Tells whether the stream has drifted: then the item vectors may move further again.
        """
        items = self.learner.items
        known = self.num_evaluated_items
        self.num_evaluated_items = len(items)
        if not known:
            return False
        targets_M = windows.target_rows
        vectors_ND = items.unit_vectors()[:known]
        own_MD = queries(self.learner.encoder, vectors_ND, windows)
        theirs_M = None
        if (serving := self._serving) is not None:
            theirs_MD = queries(serving.encoder, serving.vectors_ND, windows)
            theirs_M = target_ranks(theirs_MD, serving.vectors_ND, targets_M)
        own_M = target_ranks(own_MD, vectors_ND, targets_M)
        self.comparison.add(own_M, theirs_M, windows.sizes)
        drifted = self.drift.add(own_M <= K)
        if drifted:
            items.accumulators_N.mul_(_KEPT_OF_SUMS)
        few = thin(windows, self._settings.fusion.max_step_examples)
        self.fusion.observe(
            few, queries(self.learner.encoder, vectors_ND, few), vectors_ND, self.learner.rng
        )
        return drifted

    def _keep_recent(self, windows: Windows) -> None:
        self.recent.append(windows)
        self._num_recent += windows.num_targets
        while self._num_recent - _RECENT_TARGETS >= self.recent[0].num_targets:
            self._num_recent -= self.recent.popleft().num_targets
