"""The best list that the simulated world allows, computed exactly; draws no random number.

Shapes: L live slots, T topics, S successors, M interests, B clicks of a block, K list entries,
C candidates.
"""

import numpy as np
from numpy.typing import NDArray

from stream.simulator_settings import BEST_LIST
from stream.simulator_world import Askers, Floats, Ints, ItemWorld


class Oracle:
    """Knows the users' interests and the world; call `refresh` after the world's."""

    def __init__(self, world: ItemWorld) -> None:
        self._world = world
        sizes_T = np.diff(world.bounds_T1)
        self._grid_TL = world.bounds_T1[:-1, None] + np.arange(sizes_T.max())
        self._outside_TL = self._grid_TL >= world.bounds_T1[1:, None]
        self._grid_TL[self._outside_TL] = 0
        self.refresh()

    def refresh(self) -> None:
        """Find the heaviest slots of every topic and of the whole world."""
        weight_TL = self._world.weight_L[self._grid_TL]
        weight_TL[self._outside_TL] = 0.0
        top_TK = _largest(weight_TL)
        self._top_TK = np.take_along_axis(self._grid_TL, top_TK, axis=1)
        self._top_weight_TK = np.take_along_axis(weight_TL, top_TK, axis=1)
        self._top_K = _largest(self._world.weight_L[None, :])[0]

    def best_rate(self, askers: Askers) -> Floats:
        """Return the probability that the next click is in the best possible list of 20."""
        _, chance_BC = self._candidates(askers)
        if chance_BC.shape[1] > BEST_LIST:
            chance_BC = np.partition(chance_BC, -BEST_LIST, axis=1)[:, -BEST_LIST:]
        return np.asarray(chance_BC.sum(axis=1))

    def best_slots(self, askers: Askers) -> Ints:
        """Return the slots of that list, best first; -1 where nothing more is possible."""
        slots_BC, chance_BC = self._candidates(askers)
        order_BK = np.argsort(-chance_BC, axis=1, kind="stable")[:, :BEST_LIST]
        best_BK = np.take_along_axis(slots_BC, order_BK, axis=1)
        return np.where(np.take_along_axis(chance_BC, order_BK, axis=1) > 0.0, best_BK, -1)

    def _candidates(self, askers: Askers) -> tuple[Ints, Floats]:
        """Return every slot that may be among the best, once, with its probability.

        Enough: an item that is no successor and that 20 heavier items of its own topic (or of
        the world, if its topic is of no interest) precede is less likely than all of those.
        """
        world = self._world
        follow_B, interest_B = world.shares(askers.slot_B)
        rest_B = (1.0 - follow_B - interest_B) / world.total
        per_topic_BM = interest_B[:, None] * world.interest_odds_M
        per_topic_BM = per_topic_BM / world.topic_total_T[askers.topics_BM] + rest_B[:, None]
        topic_BMK = self._top_weight_TK[askers.topics_BM] * per_topic_BM[:, :, None]
        popular_BK = world.weight_L[self._top_K] * rest_B[:, None]
        # Heavy items of a topic of interest are among that topic's heaviest already.
        popular_BK[self._of_interest(self._top_K[None, :], askers).any(axis=2)] = 0.0
        size = len(askers.slot_B)
        slots_BC = np.concatenate(
            (
                self._top_TK[askers.topics_BM].reshape(size, -1),
                np.broadcast_to(self._top_K, popular_BK.shape),
            ),
            axis=1,
        )
        chance_BC = np.concatenate((topic_BMK.reshape(size, -1), popular_BK), axis=1)
        return self._with_successors(askers, slots_BC, chance_BC, per_topic_BM, rest_B)

    def _with_successors(
        self,
        askers: Askers,
        slots_BC: Ints,
        chance_BC: Floats,
        per_topic_BM: Floats,
        rest_B: Floats,
    ) -> tuple[Ints, Floats]:
        """Append the successors with their whole probability and cancel their other entries."""
        world = self._world
        has_item_B = askers.slot_B >= 0
        follow_BS = world.successors_LS[askers.slot_B]
        mine_BSM = self._of_interest(follow_BS, askers)
        factor_BS = (mine_BSM * per_topic_BM[:, None, :]).sum(axis=2)
        factor_BS = np.where(mine_BSM.any(axis=2), factor_BS, rest_B[:, None])
        follow_B, _ = world.shares(askers.slot_B)
        chance_BS = world.weight_L[follow_BS] * factor_BS
        chance_BS += follow_B[:, None] * world.successor_odds_S
        chance_BS[~has_item_B] = 0.0
        for column in range(follow_BS.shape[1]):
            again_BC = slots_BC == follow_BS[:, column, None]
            chance_BC[again_BC & has_item_B[:, None]] = 0.0
        return (
            np.concatenate((slots_BC, follow_BS), axis=1),
            np.concatenate((chance_BC, chance_BS), axis=1),
        )

    def _of_interest(self, slots_BN: Ints, askers: Askers) -> NDArray[np.bool_]:
        """Tell which of the slots belong to which topic of interest: B by N by M."""
        mine_BNM = self._world.topic_L[slots_BN][:, :, None] == askers.topics_BM[:, None, :]
        return np.asarray(mine_BNM)


def _largest(values_NL: Floats) -> Ints:
    """Return the columns of the 20 largest values of each row."""
    count = min(BEST_LIST, values_NL.shape[1])
    columns_NK = np.argpartition(-values_NL, count - 1, axis=1)[:, :count]
    return np.asarray(columns_NK, dtype=np.int64)
