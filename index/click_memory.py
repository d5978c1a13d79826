"""The latest clicks, linked by item and by session, for session neighbours and rules.

Knows no item ids, no users and no model. Shapes: E clicks held at most, N items, B clicks added.
A click's number counts all clicks ever added; it is in place `number % E` until it is overwritten.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.compiled import compiled

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

NO_CLICK: Final = -1
CAPACITY: Final = 1 << 21
SHORT_CLICKS: Final = 5_000.0  # half-lives of the two popularity counts, in clicks of all users
LONG_CLICKS: Final = 200_000.0
LANES: Final = 8
_LINE: Final = 8  # int32 a click, one left over: a line of 64 bytes holds two clicks, cut by none
_AGAIN_WITHIN: Final = 32  # clicks of a session


class Links(NamedTuple):
    """Columns of the clicks held; distances count clicks, 0 means that there is none.

    `to_same_item_E` leads LANES clicks of the item back. `length_E` is kept at a session's first
    click, `to_next_E` is told when the next one comes. `again_E` is 1 where the session had the
    item among its last clicks already.
    """

    item_E: Int32
    time_E: Int64
    to_same_item_E: Int32
    to_first_E: Int32
    to_before_E: Int32
    to_next_E: Int32
    length_E: Int32
    again_E: Int32


class ItemFacts(NamedTuple):
    """What is known of each row: its latest clicks, when it was first seen, decayed counts."""

    latest_NL: Int64
    first_seen_N: Int64
    short_N: Float32
    long_N: Float32


class Held(NamedTuple):
    """All that readers need; a view, valid until the next click is added.

    `lap` is the number of the last click that was put into place 0, or will be put there next.
    """

    links: Links
    facts: ItemFacts
    num_added: int
    newest_ms: int
    lap: int = 0


class Columns(NamedTuple):
    """Clicks as they are shipped: row, unix ms, distance to the click before in the session."""

    rows_B: Int32
    times_B: Int64
    to_before_B: Int32


class ClickMemory:
    """A ring of clicks; memory is 40 bytes a click and 80 an item, whatever has been added.

    Readers (`index/neighbours.py`, `index/rules.py`) follow the links: those of an item lead from
    its latest clicks to older ones, those of a session both ways. A link is a read from far memory,
    and one link after the other costs ten times as much as many at once: so an item's clicks hang
    on LANES threads, and sessions are followed side by side.
    """

    def __init__(self, *, capacity: int = CAPACITY, num_items: int = 0) -> None:
        if capacity < 1:
            raise ValueError(f"capacity of {capacity} clicks, must be at least 1")
        self.capacity = capacity
        self.num_added = 0
        self.newest_ms = 0
        # A click's numbers stand side by side: one read of memory brings all that a link leads to.
        clicks_EX = np.zeros((capacity, _LINE), np.int32)
        self.links = Links(
            clicks_EX[:, 0], np.zeros(capacity, np.int64), *(clicks_EX[:, i] for i in range(1, 7))
        )
        latest, counts = np.zeros((0, LANES), np.int64), np.zeros(0, np.float32)
        self.facts = ItemFacts(latest, np.zeros(0, np.int64), counts, counts)
        self.reach(num_items)

    @property
    def oldest(self) -> int:
        """Number of the oldest click that is still held."""
        return max(0, self.num_added - self.capacity)

    @property
    def num_items(self) -> int:
        """Rows that may be added."""
        return len(self.facts.latest_NL)

    @property
    def held(self) -> Held:
        """What the compiled readers take."""
        lap = self.num_added // self.capacity * self.capacity
        return Held(self.links, self.facts, self.num_added, self.newest_ms, lap)

    def reach(self, num_items: int) -> None:
        """Have room for at least so many rows."""
        missing = num_items - self.num_items
        if missing > 0:
            facts = self.facts
            self.facts = ItemFacts(
                np.append(facts.latest_NL, np.full((missing, LANES), NO_CLICK, np.int64), axis=0),
                *(np.append(column, np.zeros(missing, column.dtype)) for column in facts[1:]),
            )

    def append(self, rows_B: NDArray[Any], times_B: NDArray[Any], before_B: NDArray[Any]) -> int:
        """Add clicks in log order; return the number of the first.

        `before_B` is the number of the click before in the same session, NO_CLICK at its start; one
        that is no longer held starts a session anew. Raises ValueError for rows out of range and
        for a `before` that is not older than its click.
        """
        rows_B = np.ascontiguousarray(rows_B, np.int32)
        times_B = np.ascontiguousarray(times_B, np.int64)
        before_B = np.ascontiguousarray(before_B, np.int64)
        first = self.num_added
        if len(rows_B) and not 0 <= rows_B.min() <= rows_B.max() < self.num_items:
            raise ValueError(f"a row is not in 0..{self.num_items - 1}")
        if (before_B >= first + np.arange(len(rows_B))).any():
            raise ValueError("a click comes before the one that its session had before it")
        _append(self.links, self.facts, rows_B, times_B, before_B, first)
        self.num_added += len(rows_B)
        self.newest_ms = max(self.newest_ms, int(times_B.max(initial=0)))
        return first

    def columns(self, since: int = 0) -> Columns:
        """Return the clicks from number `since` on that are still held, in order."""
        places = np.arange(max(since, self.oldest), self.num_added) % self.capacity
        links = self.links
        return Columns(links.item_E[places], links.time_E[places], links.to_before_E[places])

    def extend(self, columns: Columns) -> None:
        """Add shipped clicks; a click whose predecessor was not shipped starts a session."""
        numbers_B = self.num_added + np.arange(len(columns.rows_B))
        before_B = np.where(columns.to_before_B > 0, numbers_B - columns.to_before_B, NO_CLICK)
        self.append(columns.rows_B, columns.times_B, np.maximum(before_B, NO_CLICK))

    def state(self) -> Held:
        """Return a copy of the content, its clicks oldest first."""
        places = np.arange(self.oldest, self.num_added) % self.capacity
        links = Links._make(column[places] for column in self.links)
        facts = ItemFacts._make(column.copy() for column in self.facts)
        return Held(links, facts, self.num_added, self.newest_ms)

    def restore(self, state: Held) -> None:
        """Take over the content of a memory of the same capacity; continues bit for bit."""
        if len(state.links.item_E) != min(state.num_added, self.capacity):
            raise ValueError(
                f"{len(state.links.item_E)} clicks of a memory of another capacity than "
                f"{self.capacity}"
            )
        self.num_added, self.newest_ms = state.num_added, state.newest_ms
        places = np.arange(self.oldest, self.num_added) % self.capacity
        held = state.links._asdict()
        for name, column in self.links._asdict().items():
            column[places] = held[name]
        self.facts = ItemFacts._make(column.copy() for column in state.facts)

    def popular(self, k: int) -> Int64:
        """Return the rows with the most clicks of late, best first."""
        newest_N = self.facts.latest_NL[:, 0]
        age_N = (self.num_added - 1 - newest_N) / SHORT_CLICKS
        count_N = np.where(newest_N < 0, 0.0, self.facts.short_N * 0.5**age_N)
        if not len(count_N):
            return np.zeros(0, np.int64)
        best = np.sort(np.argpartition(-count_N, min(k, len(count_N)) - 1)[:k])
        order = best[np.argsort(-count_N[best], kind="stable")]
        return order[count_N[order] > 0]


@compiled
def place_of(held: Held, number: int) -> int:
    """Return where a click is held; a division at each link would cost as much as the link."""
    place = number - held.lap
    return int(place if place >= 0 else place + len(held.links.item_E))


@compiled
def latest_clicks(held: Held, row: int, most: int) -> Int64:
    """Return the numbers of an item's latest clicks that are held, newest first."""
    links = held.links
    oldest = max(0, held.num_added - len(links.item_E))
    numbers = np.empty(most, np.int64)
    lane_L = held.facts.latest_NL[row].copy()
    num = 0
    while num < most:
        before = num
        for lane in range(LANES):
            number = lane_L[lane]
            if number >= oldest and num < most:
                numbers[num] = number
                num += 1
                back = links.to_same_item_E[place_of(held, number)]
                lane_L[lane] = number - back if back > 0 else NO_CLICK
        if num == before:
            break
    return numbers[:num]


@compiled
def _append(
    links: Links, facts: ItemFacts, rows_B: Int32, times_B: Int64, before_B: Int64, first: int
) -> None:
    capacity = len(links.item_E)
    for b in range(len(rows_B)):
        number, row, before = first + b, rows_B[b], before_B[b]
        place = number % capacity
        latest_L = facts.latest_NL[row]
        newest, back = latest_L[0], latest_L[LANES - 1]
        links.item_E[place], links.time_E[place] = row, times_B[b]
        links.to_same_item_E[place] = number - back if back >= max(0, number - capacity + 1) else 0
        links.to_next_E[place] = links.to_before_E[place] = links.to_first_E[place] = 0
        links.length_E[place], links.again_E[place] = 1, 0
        if before >= 0 and number - before < capacity:
            there = before % capacity
            start = before - links.to_first_E[there]
            if number - start < capacity:
                links.to_before_E[place] = links.to_next_E[there] = number - before
                links.to_first_E[place] = number - start
                links.length_E[start % capacity] += 1
                links.again_E[place] = _had(links, before, row)
        if newest < 0:
            facts.first_seen_N[row] = times_B[b]
        age = number - newest if newest >= 0 else 0
        facts.short_N[row] = 1.0 + facts.short_N[row] * 0.5 ** (age / SHORT_CLICKS)
        facts.long_N[row] = 1.0 + facts.long_N[row] * 0.5 ** (age / LONG_CLICKS)
        for lane in range(LANES - 1, 0, -1):
            latest_L[lane] = latest_L[lane - 1]
        latest_L[0] = number


@compiled
def _had(links: Links, number: int, row: int) -> bool:
    """Tell whether the session had the item among its last clicks, up to this one."""
    capacity = len(links.item_E)
    for _ in range(_AGAIN_WITHIN):
        place = number % capacity
        if links.item_E[place] == row:
            return True
        if links.to_before_E[place] == 0:
            return False
        number -= links.to_before_E[place]
    return False
