"""How an index should search a catalogue, decided by measuring; knows no catalogue ids.

Shapes: N items, D dimensions, C lists, Q queries, K best items.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import faiss
import numpy as np
from numpy.typing import NDArray

from index.lists import NONE_ASIDE, IndexPlan, Lists

Float32 = NDArray[np.float32]

EXACT_BELOW_ITEMS: Final = 10_000
LISTS_PER_ROOT: Final = 4  # lists = 4 sqrt(N)
WORTHWHILE_SHARE: Final = 1 / 3  # a query that visits more lists costs about as much as all items
_KEEPING_SHARE: Final = 1 / 12  # of the items; to read fewer, other centroids are worth k-means
_KEEPING_GROWTH: Final = 1.25  # of the number of lists
MAX_QUERIES: Final = 1_000
_KMEANS_ROUNDS: Final = 8
_POINTS_PER_LIST: Final = 64
_TIE: Final = 1e-6


def plan(
    vectors_ND: Float32,
    queries_QD: Float32,
    *,
    k: int = 20,
    target: float = 0.99,
    seed: int = 0,
    previous: IndexPlan | None = None,
) -> IndexPlan:
    """Return a plan whose recall@k on `queries_QD` is at least `target`.

    The centroids of a `previous` plan are kept while a query reads few items: k-means is most of
    what a plan costs.

    The queries must be real ones: recall on synthetic queries does not carry over. Exact search is
    planned for a small catalogue, without queries, and where lists would not save enough
    (docs/decisions/0002-index-thresholds.md).
    """
    queries_QD = queries_QD[np.isfinite(queries_QD).all(axis=1)]
    if len(vectors_ND) < EXACT_BELOW_ITEMS or not len(queries_QD):
        return IndexPlan()
    if (centroids_CD := _kept_centroids(previous, vectors_ND)) is not None:
        aim = _Aim(k, target, seed)
        kept = _measured(vectors_ND, queries_QD, centroids_CD, aim, WORTHWHILE_SHARE)
        if kept is not None and _share_read(kept, queries_QD[:MAX_QUERIES]) <= _KEEPING_SHARE:
            return kept
    lists = plan_lists(
        vectors_ND, queries_QD, k=k, target=target, seed=seed, max_share=WORTHWHILE_SHARE
    )
    return lists or IndexPlan()


def plan_lists(
    vectors_ND: Float32,
    queries_QD: Float32,
    *,
    k: int,
    target: float,
    seed: int,
    max_share: float,
) -> IndexPlan | None:
    """Return the smallest nprobe that meets the target, None above `max_share` of the lists."""
    sample_QD = _sampled(queries_QD, seed)
    num_lists = int(LISTS_PER_ROOT * len(vectors_ND) ** 0.5)
    # Popular items lie near the mean query and are in many results. A list of their own makes it
    # certain that they are found early; k-means alone leaves them apart for some seeds.
    centroids_CD = np.concatenate(
        [_centroids(vectors_ND, num_lists - 1, seed), _mean_direction(sample_QD)]
    )
    return _measured(vectors_ND, queries_QD, centroids_CD, _Aim(k, target, seed), max_share)


@dataclass(frozen=True, slots=True)
class _Aim:
    """The recall@k to reach, and the seed that chooses the queries to measure it on."""

    k: int
    target: float
    seed: int


def _kept_centroids(previous: IndexPlan | None, vectors_ND: Float32) -> Float32 | None:
    """Return a plan's centroids if they are about as many as these vectors want."""
    if previous is None or previous.centroids_CD is None:
        return None
    num_lists, dim = previous.centroids_CD.shape
    wanted = LISTS_PER_ROOT * len(vectors_ND) ** 0.5
    enough = wanted / _KEEPING_GROWTH <= num_lists <= wanted * _KEEPING_GROWTH
    return previous.centroids_CD if enough and dim == vectors_ND.shape[1] else None


def _measured(
    vectors_ND: Float32,
    queries_QD: Float32,
    centroids_CD: Float32,
    aim: _Aim,
    max_share: float,
) -> IndexPlan | None:
    """Return the plan of these centroids with the smallest nprobe that meets the target."""
    sample_QD = _sampled(queries_QD, aim.seed)
    quantiser = faiss.IndexFlatIP(vectors_ND.shape[1])
    quantiser.add(centroids_CD)
    list_numbers_N = quantiser.search(vectors_ND, 1)[1][:, 0].astype(np.int32)
    lists = Lists(vectors_ND, IndexPlan(centroids_CD, list_numbers_N, 1))
    threshold_Q = _exact_threshold(vectors_ND, sample_QD, aim.k)

    def recall_at(nprobe: int) -> float:
        lists.probe(nprobe)
        scores_QK = lists.search(sample_QD, aim.k, vectors_ND, NONE_ASIDE)[0]
        return float((scores_QK >= threshold_Q[:, None] - _TIE).mean())

    nprobe = _smallest(recall_at, aim.target, max(1, int(max_share * len(centroids_CD))))
    if nprobe is None:
        return None
    return IndexPlan(centroids_CD, list_numbers_N, nprobe, recall_at(nprobe))


def _share_read(plan: IndexPlan, queries_QD: Float32) -> float:
    """Return the mean share of all items that are in the lists which a query visits."""
    assert plan.centroids_CD is not None
    assert plan.list_numbers_N is not None
    size_C = np.bincount(plan.list_numbers_N, minlength=plan.num_lists)
    nearest_QP = np.argpartition(-(queries_QD @ plan.centroids_CD.T), plan.nprobe - 1, axis=1)
    read_Q = size_C[nearest_QP[:, : plan.nprobe]].sum(axis=1)
    return float(read_Q.mean()) / len(plan.list_numbers_N)


def _sampled(queries_QD: Float32, seed: int) -> Float32:
    return np.random.default_rng(seed).permutation(queries_QD)[:MAX_QUERIES]


def _centroids(vectors_ND: Float32, num_lists: int, seed: int) -> Float32:
    kmeans = faiss.Kmeans(
        vectors_ND.shape[1],
        num_lists,
        niter=_KMEANS_ROUNDS,
        spherical=True,
        seed=seed,
        min_points_per_centroid=1,  # fewer than usual is meant, not worth a warning
        max_points_per_centroid=_POINTS_PER_LIST,
    )
    kmeans.train(vectors_ND)
    centroids_CD = kmeans.centroids
    assert centroids_CD is not None
    return np.asarray(centroids_CD, np.float32)


def _mean_direction(queries_QD: Float32) -> Float32:
    mean_1D: Float32 = queries_QD.mean(axis=0, keepdims=True)
    return mean_1D / max(float(np.linalg.norm(mean_1D)), 1e-12)


def _exact_threshold(vectors_ND: Float32, queries_QD: Float32, k: int) -> Float32:
    """Return each query's exact k-th best score."""
    exact = faiss.IndexFlatIP(vectors_ND.shape[1])
    exact.add(vectors_ND)
    scores_QK = exact.search(queries_QD, min(k, len(vectors_ND)))[0]
    threshold_Q: Float32 = scores_QK[:, -1]
    return threshold_Q


def _smallest(recall_at: Callable[[int], float], target: float, most: int) -> int | None:
    """Double nprobe until the target is met, then halve the interval; None when `most` fails."""
    low, high = 0, 1
    while recall_at(high) < target:
        if high == most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if recall_at(middle) < target else (low, middle)
    return high
