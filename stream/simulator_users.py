"""The simulated users and their running sessions; does not know the items' popularity.

Shapes: U users, A sessions running at once, M interests, B clicks of a block.
"""

import numpy as np

from stream.simulator_settings import SimulatorSettings
from stream.simulator_world import Askers, Ints, distinct_others


class SessionPool:
    """Running sessions, at most one per user; a session that ends makes room for another."""

    def __init__(self, settings: SimulatorSettings, rng: np.random.Generator) -> None:
        self._settings = settings
        self._rng = rng
        self.topics_UM = _first_interests(settings, rng)
        self.sessions_U = np.zeros(settings.users, dtype=np.int64)
        order_U = rng.permutation(settings.users)
        self._idle = order_U[settings.active_sessions :].copy()
        self.user_A = order_U[: settings.active_sessions].copy()
        self.slot_A = np.full(settings.active_sessions, -1, dtype=np.int64)
        self.fresh_A = np.ones(settings.active_sessions, dtype=np.bool_)
        self._open(self.user_A)

    def pick(self) -> Ints:
        """Return the sessions that click next: half of the running ones, in random order."""
        running = self._settings.active_sessions
        return self._rng.permutation(running)[: (running + 1) // 2]

    def askers(self, picked_B: Ints) -> Askers:
        """Return what the next clicks of these sessions depend on."""
        return Askers(self.slot_A[picked_B], self.topics_UM[self.user_A[picked_B]])

    def clicked(self, picked_B: Ints, slot_B: Ints) -> None:
        """Move the sessions on to the clicked slots; some end and others begin."""
        self.slot_A[picked_B] = slot_B
        self.fresh_A[picked_B] = False
        ends_B = self._rng.random(len(picked_B)) * self._settings.session_length < 1.0
        self._replace(picked_B[ends_B])

    def forget(self, replaced_R: Ints) -> None:
        """Leave sessions whose current item has faded without a current item."""
        self.slot_A[np.isin(self.slot_A, replaced_R)] = -1

    def _replace(self, ended_E: Ints) -> None:
        """Swap the users of ended sessions with idle ones."""
        count = min(len(ended_E), len(self._idle))
        ended_E = ended_E[:count]
        at_E = self._rng.choice(len(self._idle), count, replace=False, shuffle=False)
        users_E = self._idle[at_E]
        self._idle[at_E] = self.user_A[ended_E]
        self.user_A[ended_E] = users_E
        self.slot_A[ended_E] = -1
        self.fresh_A[ended_E] = True
        self._open(users_E)

    def _open(self, users_E: Ints) -> None:
        """Count the session; now and then one interest has given way to another."""
        self.sessions_U[users_E] += 1
        settings, rng = self._settings, self._rng
        drifts_E = rng.random(len(users_E)) < settings.drift
        topic_E = rng.integers(settings.topics, size=len(users_E))
        place_E = rng.integers(settings.interests, size=len(users_E))
        drifts_E &= (self.topics_UM[users_E] != topic_E[:, None]).all(axis=1)
        self.topics_UM[users_E[drifts_E], place_E[drifts_E]] = topic_E[drifts_E]


def _first_interests(settings: SimulatorSettings, rng: np.random.Generator) -> Ints:
    """Draw distinct topics for every user: U by M."""
    main_U = rng.integers(settings.topics, size=settings.users)
    if settings.interests == 1:
        return main_U[:, None]
    others_UM = distinct_others(rng, main_U, settings.topics, settings.interests - 1)
    return np.concatenate((main_U[:, None], others_UM), axis=1)
