"""The whole computation: clicks, sessions and a model version in, lists out; no Kafka, no clock.

Shapes: B clicks of a batch, W of a wave, R ring, D item vector, H state, C candidates, K list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import torch

from index.candidates import NUM_NEAR, RING
from index.diversity import POOL
from index.features import NEAR
from worker.exploration import chosen, explore
from worker.fusion import Ordered
from worker.ranking import Lists, Spread, rank
from worker.sessions import EMPTY, Sessions
from worker.settings import RankingSettings
from worker.version import ServingVersion

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Clicks:
    """Accepted clicks of one batch in log order, as columns.

    `repeat_B` marks clicks that the session has already applied: answered again, never applied
    again. `code_B` is the item's catalogue row, or a newcomer's code below -1.
    """

    slot_B: Array
    code_B: Array
    time_B: Array
    offset_B: Array
    session_hash_B: Array
    repeat_B: Array
    item_ids: list[str]

    def __len__(self) -> int:
        """Number of clicks."""
        return len(self.item_ids)


@dataclass(frozen=True, slots=True)
class Advanced:
    """Every click's session right after it: query, ring, clicks applied, digest.

    `personal_B` is False where the session holds no item that the version knows; its query is 0.
    """

    queries_BD: Array
    personal_B: Array
    rings_BR: Array
    n_B: Array
    digest_B: Array
    num_reencoded: int


class Tried(NamedTuple):
    """A version on trial, the clicks that got its lists, and the maker that these count for."""

    version: ServingVersion
    chosen_B: Array
    maker: int


@dataclass(frozen=True, slots=True)
class Answers:
    """One list per click, the session behind it, and which lists are of a version on trial."""

    sessions: Advanced
    lists: Lists
    tried: Tried | None = None


def recommend(
    clicks: Clicks,
    sessions: Sessions,
    version: ServingVersion,
    *,
    ranking: RankingSettings,
    idle_gap_ms: int,
    lap: Callable[[str], None],
) -> Answers:
    """Apply the clicks to their sessions and answer each with a list.

    The answer is a function of the arguments alone, but for the last item of a list that explores:
    that follows from what the version's lists have shown. `lap` is told each stage that ends.
    """
    advanced = advance(clicks, sessions, version, idle_gap_ms)
    lap("encode")
    return Answers(advanced, make_lists(advanced, clicks.code_B, version, ranking, lap))


def make_lists(
    advanced: Advanced,
    code_B: Array,
    version: ServingVersion,
    ranking: RankingSettings,
    lap: Callable[[str], None] = lambda stage: None,
) -> Lists:
    """Return the list of each session, whose newest click was on `code_B`."""
    excluded_BX = _excluded(advanced.rings_BR, code_B, ranking)
    scores_BC, codes_BC = _search(advanced, version, _width(ranking) + excluded_BX.shape[1])
    lap("search")
    if version.fusion is None:
        found = Ordered(codes_BC, scores_BC, np.full(codes_BC.shape, NEAR, np.int32))
    else:
        found = version.fusion.order(
            *(advanced.rings_BR, advanced.queries_BD, (scores_BC, codes_BC)),
            session_items=ranking.exclude != "session",
        )
    popular = (version.popular_rows_P, version.popular_scores_P)
    lists = rank(found, excluded_BX, popular, ranking.k, _spread(version, ranking))
    if version.fusion is not None and ranking.exploration:
        chosen_B = chosen(advanced.digest_B, ranking.exploration)
        explore(lists, found, excluded_BX, chosen_B, version.fusion.shown)
    lap("rank")
    return lists


def advance(
    clicks: Clicks, sessions: Sessions, version: ServingVersion, idle_gap_ms: int
) -> Advanced:
    """Apply the clicks to their sessions, in place.

    Same-user clicks are applied in waves, each wave one batched encoder step, so a batch equals its
    clicks one by one. States of another version are first re-encoded from their last items.
    """
    num, dim = len(clicks), version.bundle.vectors_ND.shape[1]
    queries_BD = np.zeros((num, dim), np.float32)
    rings_BR = np.full((num, RING), EMPTY, np.int32)
    newest_B = np.full(num, EMPTY, np.int32)
    n_B, digest_B = np.zeros(num, np.int64), np.zeros(num, np.uint32)
    num_reencoded = 0
    for wave_W in _waves(clicks.slot_B):
        slots_W = clicks.slot_B[wave_W]
        num_reencoded += reencode(sessions, slots_W, version)
        _apply(clicks, wave_W[~clicks.repeat_B[wave_W]], sessions, version, idle_gap_ms)
        rings_BR[wave_W], _ = sessions.ordered(slots_W)
        newest_B[wave_W] = newest_W = newest_rows(rings_BR[wave_W])
        known_W = newest_W >= 0
        queries_BD[wave_W[known_W]] = query(
            sessions.hidden_SH[slots_W[known_W]], newest_W[known_W], version
        )
        n_B[wave_W], digest_B[wave_W] = sessions.n_S[slots_W], sessions.digest_S[slots_W]
    return Advanced(queries_BD, newest_B >= 0, rings_BR, n_B, digest_B, num_reencoded)


def reencode(sessions: Sessions, slots_B: Array, version: ServingVersion) -> int:
    """Rebuild the states of `slots_B` that another version made, from their last known items.

    A hidden state means nothing under other weights, the ring of items does. Returns how many were
    rebuilt; new users' empty states are not counted.
    """
    slots_B = slots_B[sessions.version_S[slots_B] != version.number]
    rings_BR, _ = sessions.ordered(slots_B)
    sessions.hidden_SH[slots_B] = 0.0
    sessions.version_S[slots_B] = version.number
    full_B = (rings_BR >= 0).any(axis=1)
    if full_B.any():
        sessions.hidden_SH[slots_B[full_B]] = encode_rings(rings_BR[full_B], version)
    return int(full_B.sum())


def encode_rings(rings_BR: Array, version: ServingVersion) -> Array:
    """Return the state after the known items of each ring, oldest first; every ring has one."""
    known_BR = rings_BR >= 0
    # Known items move to the front, in order; the encoder sees the first `lengths` of them.
    order_BR = np.argsort(~known_BR, axis=1, kind="stable")
    rows_BR = np.maximum(np.take_along_axis(rings_BR, order_BR, axis=1), 0)
    with torch.inference_mode():
        items_BRD = torch.from_numpy(version.bundle.vectors_ND[rows_BR])
        lengths_B = torch.from_numpy(known_BR.sum(axis=1))
        hidden_BH = version.bundle.encoder.encode(items_BRD, lengths_B)
    return hidden_BH.numpy()


def digest_of(previous: int, offset: int, item_id: str) -> int:
    """Return the CRC chain over applied clicks, one click further."""
    return crc32(b"%d %s" % (offset, item_id.encode()), previous)


def _waves(slots_B: Array) -> Iterator[Array]:
    # The w-th click of every user is in wave w; log order holds within each.
    order_B = np.argsort(slots_B, kind="stable")
    sorted_B = slots_B[order_B]
    starts = np.flatnonzero(np.r_[True, sorted_B[1:] != sorted_B[:-1]])
    counts = np.diff(np.r_[starts, len(sorted_B)])
    wave_B = np.arange(len(sorted_B)) - np.repeat(starts, counts)
    for wave in range(int(counts.max(initial=0))):
        yield np.sort(order_B[wave_B == wave])


def _apply(
    clicks: Clicks, wave_W: Array, sessions: Sessions, version: ServingVersion, idle_gap_ms: int
) -> None:
    slots_W, codes_W = clicks.slot_B[wave_W], clicks.code_B[wave_W]
    times_W, hashes_W = clicks.time_B[wave_W], clicks.session_hash_B[wave_W]
    idle_W = times_W - sessions.time_S[slots_W] > idle_gap_ms
    other_W = (hashes_W != 0) & (hashes_W != sessions.session_hash_S[slots_W])
    sessions.start_session(slots_W[idle_W | other_W])
    named_W = hashes_W != 0
    sessions.session_hash_S[slots_W[named_W]] = hashes_W[named_W]
    sessions.push(slots_W, codes_W)
    _step(sessions, slots_W[codes_W >= 0], codes_W[codes_W >= 0], version)
    # Out-of-order clicks are applied in log order; time never goes back.
    sessions.time_S[slots_W] = np.maximum(sessions.time_S[slots_W], times_W)
    sessions.offset_S[slots_W] = clicks.offset_B[wave_W]
    sessions.n_S[slots_W] += 1
    sessions.digest_S[slots_W] = [
        digest_of(previous, offset, clicks.item_ids[b])
        for previous, offset, b in zip(
            sessions.digest_S[slots_W].tolist(),
            clicks.offset_B[wave_W].tolist(),
            wave_W.tolist(),
            strict=True,
        )
    ]


def _step(sessions: Sessions, slots_W: Array, rows_W: Array, version: ServingVersion) -> None:
    if not len(slots_W):
        return
    with torch.inference_mode():
        items_WD = torch.from_numpy(version.bundle.vectors_ND[rows_W])
        hidden_WH = torch.from_numpy(sessions.hidden_SH[slots_W])
        sessions.hidden_SH[slots_W] = version.bundle.encoder.step(hidden_WH, items_WD).numpy()


def query(hidden_WH: Array, rows_W: Array, version: ServingVersion) -> Array:
    """Return the query of each state, of length one, for sessions whose newest row is given."""
    with torch.inference_mode():
        items_WD = torch.from_numpy(version.bundle.vectors_ND[rows_W])
        query_WD = version.bundle.encoder.query(torch.from_numpy(hidden_WH), items_WD)
    return query_WD.numpy()


def _search(advanced: Advanced, version: ServingVersion, num_needed: int) -> tuple[Array, Array]:
    """Return (scores, codes) near each session's query; none where its channel is off."""
    if version.fusion is not None and not version.fusion.by_vector:
        empty = (len(advanced.queries_BD), 0)
        return np.zeros(empty, np.float32), np.zeros(empty, np.int64)
    num_near = max(num_needed, NUM_NEAR if version.fusion else 0)
    scores_BC, codes_BC = version.index.search(advanced.queries_BD, num_near)
    codes_BC[~advanced.personal_B] = EMPTY
    return scores_BC, codes_BC


def _width(ranking: RankingSettings) -> int:
    """Return how many candidates a list is chosen from at least."""
    return max(ranking.k, POOL) if ranking.diversity else ranking.k


def _spread(version: ServingVersion, ranking: RankingSettings) -> Spread | None:
    """Return how like items give way; a cosine becomes a logit by the temperature."""
    if not ranking.diversity:
        return None
    scale = 1.0 if version.fusion is not None else version.bundle.manifest.temperature
    return Spread(version.bundle.vectors_ND, ranking.diversity, scale)


def newest_rows(rings_WR: Array) -> Array:
    """Return the newest item of each ring that has a row, EMPTY where there is none."""
    known_WR = rings_WR >= 0
    last_W = RING - 1 - np.argmax(known_WR[:, ::-1], axis=1)
    newest_W = rings_WR[np.arange(len(rings_WR)), last_W]
    return np.where(known_WR.any(axis=1), newest_W, EMPTY)


def _excluded(rings_BR: Array, codes_B: Array, ranking: RankingSettings) -> Array:
    if ranking.exclude == "session":
        return rings_BR
    if ranking.exclude == "current":
        return codes_B[:, None]
    return np.empty((len(codes_B), 0), np.int32)
