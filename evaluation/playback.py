"""Recorded clicks through the worker's sessions and recommender; knows no learning and no figure.

Shapes: F clicks of the log, C of a stretch, W of a wave, B of a batch, U sessions, I items, N rows
of a version, K items of a list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from evaluation.channels import channels
from evaluation.exposure import NOTHING, distances_within
from evaluation.recorded import Bool, Int64, Recorded
from evaluation.tally import Tally
from worker.newcomers import Newcomers
from worker.recommender import Clicks, advance, recommend
from worker.sessions import EMPTY, Sessions
from worker.settings import RankingSettings
from worker.version import ServingVersion

Array = np.ndarray[Any, np.dtype[Any]]

_STRETCH_CLICKS: Final = 4_096
_BATCH_CLICKS: Final = 256
_NO_PAUSE_MS: Final = 2**62  # the log was cut into sessions before: a slot is one of them
_PARTITION: Final = 0


class Playback:
    """Predicts each click from its session as it stands, then applies it, under one version.

    A prediction is the answer to the session's click before, asked again (`Clicks.repeat_B`) at the
    time of the click to predict, under the version that serves then.
    """

    def __init__(
        self, recorded: Recorded, points_P: Int64, ranking: RankingSettings, tally: Tally
    ) -> None:
        self._recorded = recorded
        self._ranking = ranking
        self._tally = tally
        self._asked_F: Bool = np.zeros(len(recorded), bool)
        self._asked_F[points_P] = True
        self._last_S = np.zeros(recorded.num_sessions, np.int64)
        np.maximum.at(self._last_S, recorded.session_F, np.arange(len(recorded)))
        self._sessions = Sessions(0, max_live=recorded.num_sessions + _STRETCH_CLICKS)
        self._slot_S = np.full(recorded.num_sessions, EMPTY, np.int64)
        self._newcomers = Newcomers(0)
        self._version: ServingVersion | None = None
        self._rows_I: Array = np.full(len(recorded.item_ids), NOTHING, np.int64)
        self._item_N: Array = np.zeros(0, np.int64)

    def serve(self, version: ServingVersion) -> None:
        """Answer under `version` from now on; rings are renamed, states re-encoded when used."""
        version.enter(self._version)
        old, self._version = self._version, version
        catalogue = version.bundle.catalogue
        state_dim = version.bundle.encoder.state_dim
        if state_dim != self._sessions.hidden_SH.shape[1]:
            self._sessions.resize_state(state_dim)
        if old is not None:
            if not catalogue.extends(old.bundle.catalogue):
                raise ValueError("a version has other rows than the one before it")
            self._sessions.rename(self._newcomers.admit(catalogue.row))
        self._newcomers.renew(version.bundle.vectors_ND.shape[1], self._sessions.codes_in_use)
        self._find_items()

    def _find_items(self) -> None:
        """Find the rows of the log's items that had none: of the others they stay."""
        catalogue, item_ids = self._serving.bundle.catalogue, self._recorded.item_ids
        unknown_I = np.flatnonzero(self._rows_I < 0)
        self._rows_I[unknown_I] = catalogue.rows(item_ids[item] for item in unknown_I.tolist())
        self._item_N = np.full(len(catalogue), NOTHING, np.int64)
        known_I = np.flatnonzero(self._rows_I >= 0)
        self._item_N[self._rows_I[known_I]] = known_I

    def catch_up(self, position: int) -> None:
        """Apply what came before `position` in the sessions that go on after it."""
        session_F = self._recorded.session_F[:position]
        for stretch_C in _pieces(
            np.flatnonzero(self._last_S[session_F] >= position), _STRETCH_CLICKS
        ):
            self._play(stretch_C, self._recorded.session_F[stretch_C])

    def play(self, start: int, stop: int, show: Callable[[int], None]) -> None:
        """Predict and apply the clicks from `start` to before `stop`; `show` is told how many."""
        for stretch_C in _pieces(np.arange(start, stop), _STRETCH_CLICKS):
            self._play(stretch_C, self._recorded.session_F[stretch_C])
            show(len(self._tally))

    def _play(self, stretch_C: Int64, session_C: Int64) -> None:
        """Play some clicks in waves: the w-th click of every session is in wave w.

        Sessions do not depend on each other under one version, so only the order within each
        counts: no prediction comes before its session's click before was applied.
        """
        session_U, first_U, of_C = np.unique(session_C, return_index=True, return_inverse=True)
        self._enter(session_U)
        position_C = self._recorded.position_F[stretch_C]
        wave_C = position_C - position_C[first_U][of_C]
        for wave in range(int(wave_C.max(initial=-1)) + 1):
            points_W = stretch_C[wave_C == wave]
            for points_B in _pieces(points_W[self._asked_F[points_W]], _BATCH_CLICKS):
                self._predict(points_B)
            clicks = self._clicks(points_W, self._recorded.time_F[points_W], repeated=False)
            advance(clicks, self._sessions, self._serving, _NO_PAUSE_MS)
        self._leave(session_U[self._last_S[session_U] <= stretch_C[-1]])

    def _predict(self, points_B: Int64) -> None:
        recorded, version = self._recorded, self._serving
        before_B = recorded.previous_F[points_B]
        clicks = self._clicks(before_B, recorded.time_F[points_B], repeated=True)
        answers = recommend(
            *(clicks, self._sessions, version),
            ranking=self._ranking,
            idle_gap_ms=_NO_PAUSE_MS,
            lap=_unheard,
        )
        codes_BK = answers.lists.codes_BK
        found = channels(version, answers.sessions, self._ranking)
        self._tally.add(
            points_B,
            self._items(codes_BK),
            distances_within(codes_BK, version.bundle.vectors_ND),
            {name: self._items(found_BK) for name, found_BK in found.items()},
        )

    @property
    def _serving(self) -> ServingVersion:
        assert self._version is not None, "there is no play before a version serves"
        return self._version

    def _clicks(self, points_B: Int64, time_B: Int64, *, repeated: bool) -> Clicks:
        recorded = self._recorded
        item_B, num = recorded.item_F[points_B], len(points_B)
        item_ids = [recorded.item_ids[item] for item in item_B.tolist()]
        code_B = self._rows_I[item_B].astype(np.int32)
        for place in np.flatnonzero(code_B < 0).tolist():
            code_B[place] = self._newcomers.code(item_ids[place])
        return Clicks(
            slot_B=self._slot_S[recorded.session_F[points_B]],
            code_B=code_B,
            time_B=time_B,
            offset_B=points_B,
            session_hash_B=np.zeros(num, np.uint32),
            repeat_B=np.full(num, repeated),
            item_ids=item_ids,
        )

    def _items(self, codes_BK: Array) -> Int64:
        """Turn rows of the version into the log's numbers."""
        return np.where(codes_BK >= 0, self._item_N[np.maximum(codes_BK, 0)], NOTHING)

    def _enter(self, session_U: Int64) -> None:
        for session in session_U[self._slot_S[session_U] == EMPTY].tolist():
            self._slot_S[session] = self._sessions.create(_PARTITION, str(session))

    def _leave(self, session_U: Int64) -> None:
        for session in session_U.tolist():
            self._sessions.remove(_PARTITION, str(session))
        self._slot_S[session_U] = EMPTY


def _pieces(points_C: Int64, size: int) -> Iterator[Int64]:
    for start in range(0, len(points_C), size):
        yield points_C[start : start + size]


def _unheard(stage: str) -> None:
    """Time no stage."""
