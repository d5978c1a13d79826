"""Candidates of every channel for each session, described by numbers that a ranker weighs.

Knows rows only. Shapes: B sessions, R ring (newest first), M items near the query, C candidates,
F features, D dimensions, N items. Codes below -1 are newcomers: near the query or not at all.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.click_memory import NO_CLICK, ClickMemory
from index.describe import describe_all
from index.diversity import diverse_places
from index.features import (
    CHANNELS,
    FEATURES,
    NEAR,
    POPULAR,
    Also,
    Channels,
    Found,
    Near,
    Places,
    Work,
)
from index.neighbours import new_scores, new_scratch
from index.rescore import rescore

__all__ = ["CHANNELS", "FEATURES", "CandidateMaker", "Found", "Near"]

Int32 = NDArray[np.int32]

MAX_CANDIDATES: Final = 128
NUM_NEAR: Final = 40  # candidates by vector, in serving as in the examples that fit the ranker
RING: Final = 20  # clicks of a session that are looked at, likewise
_FROM_POPULAR: Final = 16


class CandidateMaker:
    """Finds and describes candidates; one for each thread, its work space grows with the items.

    `channels` are names of CHANNELS. The others bring nothing, cost nothing and leave their
    features at 0; a session's own items are candidates whatever the channels.
    """

    def __init__(self, memory: ClickMemory, channels: Iterable[str] = tuple(CHANNELS)) -> None:
        self.memory = memory
        self.on = sum(CHANNELS[name] for name in set(channels))
        self._work = _new_work(memory.capacity, memory.num_items)
        self._popular_P = np.zeros(0, np.int32)
        self._popular_at = -1

    @property
    def by_vector(self) -> bool:
        """Whether what the search by vector found is looked at."""
        return bool(self.on & NEAR)

    def find(self, rings_BR: Int32, near: Near, *, session_items: bool) -> Found:
        """Return the candidates of each session; `session_items` keeps those it holds already.

        `rings_BR` is newest first, -1 where it is empty; a session without a row has none. `near`
        may be empty where the search by vector is off.
        """
        self._keep_up()
        num = len(rings_BR)
        found = Found(
            np.full((num, MAX_CANDIDATES), -1, np.int64),
            np.zeros((num, MAX_CANDIDATES, len(FEATURES)), np.float32),
            np.zeros((num, MAX_CANDIDATES), np.int32),
            np.zeros(num, np.int64),
        )
        rings_BR = np.ascontiguousarray(rings_BR, np.int32)
        also = Also(self._popular_P, session_items, self.on)
        describe_all(self.memory.held, rings_BR, near, also, self._work, found)
        return found

    def _keep_up(self) -> None:
        memory = self.memory
        if len(self._work.places.times_N) < memory.num_items:
            self._work = _new_work(memory.capacity, memory.num_items)
        if self.on & POPULAR and self._popular_at != memory.num_added:
            self._popular_P = memory.popular(_FROM_POPULAR).astype(np.int32)
            self._work.numbers_NX[:, 0] = -1.0
            self._popular_at = memory.num_added


def _new_work(capacity: int, num_items: int) -> Work:
    channels = Channels(*(new_scores(num_items) for _ in range(4)))
    places = Places(*(np.full(num_items, fill, np.int32) for fill in (-1, -1, 0)))
    return Work(new_scratch(capacity), channels, places, np.full((num_items, 4), -1.0, np.float32))


def compile_now() -> None:
    """Compile, and cache, everything that a first search would: some seconds of a first start."""
    memory = ClickMemory(capacity=1, num_items=1)
    memory.append(np.zeros(1), np.zeros(1), np.full(1, NO_CLICK))
    one_BD = np.ones((1, 1), np.float32)
    near = Near(np.zeros((1, 1), np.int64), one_BD, one_BD, one_BD, 1.0)
    CandidateMaker(memory).find(np.zeros((1, 1), np.int32), near, session_items=True)
    diverse_places(near.codes_BM, one_BD, np.ones(1, np.int64), one_BD, 0.5, 1)
    rescore(one_BD, one_BD, np.zeros(0, np.bool_), one_BD, np.zeros((1, 1), np.int64))
