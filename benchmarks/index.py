"""Recall and speed of the item index, exact and with lists; knows no model and no clicks.

    python -m benchmarks.index --items 10000,100000 --dim 128 --json

Caveats: the vectors are random clusters of Zipf sizes and every query lies near one item. Trained
vectors are harder or easier by data set, so recall and nprobe here say nothing about a deployment:
`index.plan` measures there. Times are the best of several runs of one thread; on a shared machine
they still vary by a third. Shapes: N items, D dimensions, Q queries.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from index.item_index import IndexPlan, ItemIndex
from index.plan import plan, plan_lists

Float32 = NDArray[np.float32]

BATCH: Final = 256
NUM_QUERIES: Final = 1024
SIDE_ITEMS: Final = 2048
ITEMS_PER_CLUSTER: Final = 50
REPEATS: Final = 5
COLUMNS: Final = {
    "items": "items",
    "flat_us": "exact µs/query",
    "lists_us": "lists µs/query",
    "num_lists": "lists",
    "nprobe": "nprobe",
    "recall": "recall@k",
    "delta_us": "delta µs/query",
    "delta_recall": "delta recall@k",
    "delta_s": "delta s",
    "chosen": "plan",
    "side_us": "+ side µs/query",
    "plan_s": "plan s",
    "build_s": "build s",
    "add_us": "add µs",
}


def main() -> None:
    """Parse the arguments, measure each size, print a table or JSON."""
    options = _options()
    faiss.omp_set_num_threads(1)
    rows = [measure(num_items, options) for num_items in options.items]
    if options.json:
        print(json.dumps({"environment": _environment(options), "results": rows}))
    else:
        print_table(rows)


def measure(num_items: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return one line of results."""
    rng = np.random.default_rng(options.seed)
    vectors_ND = clustered(num_items, options.dim, options.spread, rng)
    near_QD = vectors_ND[rng.integers(0, num_items, NUM_QUERIES)]
    queries_QD = _unit(near_QD + options.spread * _noise(near_QD.shape, rng))
    started = time.perf_counter()
    lists = plan_lists(
        vectors_ND, queries_QD, k=options.k, target=0.99, seed=options.seed, max_share=1.0
    )
    assert lists is not None, "visiting every list finds everything"
    plan_s = time.perf_counter() - started
    flat = ItemIndex.build(vectors_ND, IndexPlan())
    started = time.perf_counter()
    index = ItemIndex.build(vectors_ND, lists)
    build_s = time.perf_counter() - started
    result: dict[str, Any] = {
        "items": num_items,
        "flat_us": _microseconds(lambda: flat.search(queries_QD[:BATCH], options.k), BATCH),
        "lists_us": _microseconds(lambda: index.search(queries_QD[:BATCH], options.k), BATCH),
        "num_lists": lists.num_lists,
        "nprobe": lists.nprobe,
        "recall": round(index.measure_recall(queries_QD[:BATCH], options.k), 4),
        "chosen": _kind(plan(vectors_ND, queries_QD, k=options.k, seed=options.seed)),
        "plan_s": round(plan_s, 2),
        "build_s": round(build_s, 3),
    }
    result |= measure_delta(index, vectors_ND, queries_QD[:BATCH], options)
    side_MD = clustered(SIDE_ITEMS, options.dim, options.spread, rng)
    started = time.perf_counter()
    for place, vector_D in enumerate(side_MD):
        index.add(-2 - place, vector_D)
    result["add_us"] = round((time.perf_counter() - started) / SIDE_ITEMS * 1e6, 1)
    result["side_us"] = _microseconds(lambda: index.search(queries_QD[:BATCH], options.k), BATCH)
    return result


def measure_delta(
    index: ItemIndex, vectors_ND: Float32, queries_BD: Float32, options: argparse.Namespace
) -> dict[str, Any]:
    """Return the cost and recall once some rows have moved by cosines of 0.99 to 0.999."""
    rng = np.random.default_rng(options.seed + 1)
    num = min(options.changed, len(vectors_ND))
    rows_M = rng.permutation(len(vectors_ND))[:num].astype(np.int32)
    cosine_M1 = rng.uniform(0.99, 0.999, (num, 1)).astype(np.float32)
    tangent_M1 = np.sqrt(1 / cosine_M1**2 - 1, dtype=np.float32)
    moved_ND = vectors_ND.copy()
    noise_MD = np.asarray(tangent_M1 * _noise((num, options.dim), rng), np.float32)
    moved_ND[rows_M] = _unit(vectors_ND[rows_M] + noise_MD)
    index.changed(moved_ND, rows_M)  # compiles
    started = time.perf_counter()
    changed = index.changed(moved_ND, rows_M)
    return {
        "delta_s": round(time.perf_counter() - started, 3),
        "delta_us": _microseconds(lambda: changed.search(queries_BD, options.k), BATCH),
        "delta_recall": round(changed.measure_recall(queries_BD, options.k), 4),
    }


def clustered(num_items: int, dim: int, spread: float, rng: np.random.Generator) -> Float32:
    """Return unit vectors around random centres, `spread` long noise, long-tailed cluster sizes."""
    centres = _unit(_noise((max(1, num_items // ITEMS_PER_CLUSTER), dim), rng))
    weights = 0.2 + rng.pareto(1.5, len(centres))
    centre_N = rng.choice(len(centres), num_items, p=weights / weights.sum())
    return _unit(centres[centre_N] + spread * _noise((num_items, dim), rng))


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print one line per size."""
    print("  ".join(COLUMNS.values()))
    for row in rows:
        print("  ".join(f"{row[key]!s:>{len(title)}}" for key, title in COLUMNS.items()))


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> Float32:
    return rng.standard_normal(shape, dtype=np.float32) / np.float32(shape[-1] ** 0.5)


def _unit(rows_ND: Float32) -> Float32:
    unit_ND: Float32 = rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return unit_ND


def _kind(chosen: IndexPlan) -> str:
    return "lists" if chosen.num_lists else "exact"


def _microseconds(search: Callable[[], object], queries: int) -> float:
    search()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        search()
        times.append(time.perf_counter() - started)
    return round(min(times) / queries * 1e6, 1)


def _environment(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "faiss": faiss.__version__,
        "machine": platform.machine(),
        "threads": 1,
        "batch": BATCH,
        **vars(options),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.index", description=__doc__)
    parser.add_argument("--items", type=_sizes, default=[10_000, 100_000], help="sizes, by commas")
    parser.add_argument("--dim", type=int, default=128, help="vector length")
    parser.add_argument("--k", type=int, default=20, help="items per query")
    parser.add_argument("--spread", type=float, default=0.7, help="noise; more is harder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--changed", type=int, default=20_000, help="rows that a delta moves")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",")]


if __name__ == "__main__":
    main()
