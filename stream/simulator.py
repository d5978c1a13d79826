"""An endless, seeded click stream with known truth; knows no Kafka and no clock."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.simulator_settings import BEST_LIST, SimulatorSettings
from stream.simulator_truth import Oracle
from stream.simulator_users import SessionPool
from stream.simulator_world import Ints, ItemWorld

__all__ = ["BEST_LIST", "SimulatedClicks", "Simulator", "SimulatorSettings"]


@dataclass(frozen=True)
class SimulatedClicks:
    """Clicks in stream order, as columns of equal length.

    `best_hit_rate_n`: probability that the click is in the best list of 20 that knows the user's
    interests and the world just before it; NaN at the first click of a session, and everywhere
    with `truth="off"`. `best_items`: those lists, best first, with `truth="list"`, else empty.
    """

    user_ids: list[str]
    session_ids: list[str]
    item_ids: list[str]
    best_hit_rate_n: NDArray[np.float32]
    best_items: list[list[str]]

    def __len__(self) -> int:
        """Return the number of clicks."""
        return len(self.user_ids)


class Simulator:
    """Click source; the same settings and seed give the same stream however it is taken."""

    def __init__(self, settings: SimulatorSettings, seed: int) -> None:
        self.settings = settings
        rng = np.random.default_rng(seed)
        self._world = ItemWorld(settings, rng)
        self._pool = SessionPool(settings, rng)
        self._oracle = None if settings.truth == "off" else Oracle(self._world)
        # The larger the world, the less a thousand clicks change it, and the dearer a refresh.
        self._refresh_every = max(1_000, settings.items // 20)
        self._next_refresh = self._refresh_every
        self._clicks = 0
        self._ready = _join([])

    def take(self, n: int) -> SimulatedClicks:
        """Return the next n clicks of the stream."""
        blocks = [self._ready]
        missing = n - len(self._ready)
        while missing > 0:
            blocks.append(self._block())
            missing -= len(blocks[-1])
        clicks = _join(blocks)
        self._ready = _part(clicks, slice(n, None))
        return _part(clicks, slice(0, n))

    def _block(self) -> SimulatedClicks:
        """Let half of the running sessions click once each."""
        if self._clicks >= self._next_refresh:
            self._refresh()
        picked_B = self._pool.pick()
        askers = self._pool.askers(picked_B)
        rate_B = np.full(len(picked_B), np.nan, dtype=np.float32)
        best: list[list[str]] = []
        if self._oracle is not None:
            rate_B = self._oracle.best_rate(askers).astype(np.float32)
            rate_B[self._pool.fresh_A[picked_B]] = np.nan
            if self.settings.truth == "list":
                best = self._names(self._oracle.best_slots(askers))
        slot_B = self._world.sample(askers)
        user_B = self._pool.user_A[picked_B]
        numbers = zip(user_B.tolist(), self._pool.sessions_U[user_B].tolist(), strict=True)
        sessions = [f"u{user}-s{count}" for user, count in numbers]
        items = [f"i{item}" for item in self._world.item_L[slot_B].tolist()]
        self._pool.clicked(picked_B, slot_B)
        self._clicks += len(picked_B)
        users = [f"u{user}" for user in user_B.tolist()]
        return SimulatedClicks(users, sessions, items, rate_B, best)

    def _refresh(self) -> None:
        """Let the world move on."""
        self._pool.forget(self._world.refresh(self._clicks))
        if self._oracle is not None:
            self._oracle.refresh()
        self._next_refresh += self._refresh_every

    def _names(self, slots_BK: Ints) -> list[list[str]]:
        """Return the item ids of lists of slots."""
        item_L = self._world.item_L
        return [[f"i{item_L[slot]}" for slot in row if slot >= 0] for row in slots_BK.tolist()]


def _join(blocks: list[SimulatedClicks]) -> SimulatedClicks:
    """Put blocks one behind the other."""
    rates = [block.best_hit_rate_n for block in blocks] or [np.empty(0, dtype=np.float32)]
    return SimulatedClicks(
        [user for block in blocks for user in block.user_ids],
        [session for block in blocks for session in block.session_ids],
        [item for block in blocks for item in block.item_ids],
        np.concatenate(rates),
        [best for block in blocks for best in block.best_items],
    )


def _part(clicks: SimulatedClicks, part: slice) -> SimulatedClicks:
    """Cut a run of clicks out."""
    return SimulatedClicks(
        clicks.user_ids[part],
        clicks.session_ids[part],
        clicks.item_ids[part],
        clicks.best_hit_rate_n[part],
        clicks.best_items[part],
    )
