"""The figures of an evaluation by name, as JSON has them; measures nothing.

Shapes: P predictions, I items, M figures.
"""

from typing import Any, Final

import numpy as np

from evaluation.evaluate import Evaluation
from evaluation.intervals import session_intervals
from evaluation.metrics import Accuracy, Int64, accuracy, hits, reciprocal_ranks
from evaluation.slices import slices

_STRETCHES: Final = 48
_STRETCH_PREDICTIONS: Final = 200
_DECIMALS: Final = 8


def report(found: Evaluation) -> dict[str, Any]:
    """Return every figure; `docs/evaluation.md` says how each is defined."""
    recorded, task = found.recorded, found.task
    points_P, ranks_P = found.tally.ranks()
    figures: dict[str, Any] = _rounded(
        {
            "protocol": task.protocol,
            "predictions": len(points_P),
            **_accuracy(accuracy(ranks_P), task.k),
            f"precision@{task.k}": accuracy(ranks_P).recall / task.k,
            **_against_time(found, points_P, ranks_P),
            **_exposure(found),
            "intervals": _intervals(found, points_P, ranks_P),
            "channels": {
                name: _accuracy(accuracy(channel_P), task.k)
                for name, channel_P in found.tally.channel_ranks().items()
            },
            "slices": {
                name: [{"slice": part.label, **_counted(part.accuracy, task.k)} for part in parts]
                for name, parts in slices(recorded, points_P, ranks_P).items()
            },
            "over_time": _over_time(found, points_P, ranks_P),
            **_work(found),
            "settings": _settings(found),
            "log": {
                "name": recorded.name,
                "clicks": len(recorded),
                "items": len(recorded.item_ids),
                "sessions": recorded.num_sessions,
                "split_ms": recorded.split_ms,
                "clicks_before_split": recorded.first_test,
            },
        }
    )
    return figures


def _accuracy(figures: Accuracy, k: int) -> dict[str, float]:
    return {f"recall@{k}": figures.recall, f"mrr@{k}": figures.mrr, f"ndcg@{k}": figures.ndcg}


def _counted(figures: Accuracy, k: int) -> dict[str, float]:
    return {
        "predictions": figures.num,
        f"recall@{k}": figures.recall,
        f"mrr@{k}": figures.mrr,
    }


def _against_time(found: Evaluation, points_P: Int64, ranks_P: Int64) -> dict[str, float]:
    """Return how many targets had no click before the split, and the recall of the others."""
    recorded = found.recorded
    warm_P = recorded.clicks_before_I[recorded.item_F[points_P]] > 0
    return {
        f"recall_warm@{found.task.k}": accuracy(ranks_P[warm_P]).recall,
        "cold_targets": float(1.0 - warm_P.mean()),
    }


def _exposure(found: Evaluation) -> dict[str, float]:
    exposure, clicks_I = found.tally.exposure, found.recorded.clicks_before_I
    catalogue_I = clicks_I > 0
    if found.task.protocol == "prequential":
        catalogue_I = np.ones(len(clicks_I), bool)
    return {
        f"coverage@{found.task.k}": exposure.coverage(catalogue_I),
        "gini": exposure.gini(catalogue_I),
        "intra_list_distance": exposure.intra_list_distance,
        "novelty": exposure.novelty(clicks_I),
        "short_lists": exposure.short_lists,
    }


def _intervals(found: Evaluation, points_P: Int64, ranks_P: Int64) -> dict[str, Any]:
    values_PM = np.stack([hits(ranks_P), reciprocal_ranks(ranks_P)], axis=1)
    session_P = found.recorded.session_F[points_P]
    bounds = session_intervals(session_P, values_PM, seed=found.task.seed)
    names = (f"recall@{found.task.k}", f"mrr@{found.task.k}")
    return {name: list(bound) for name, bound in zip(names, bounds, strict=True)}


def _over_time(found: Evaluation, points_P: Int64, ranks_P: Int64) -> list[dict[str, float]]:
    """Return the figures of stretches of the test period with equally many predictions."""
    time_P = found.recorded.time_F[points_P]
    stretches = max(1, min(_STRETCHES, len(points_P) // _STRETCH_PREDICTIONS))
    return [
        {
            "from_ms": int(time_P[part[0]]),
            "to_ms": int(time_P[part[-1]]),
            **_counted(accuracy(ranks_P[part]), found.task.k),
        }
        for part in np.array_split(np.arange(len(points_P)), stretches)
    ]


def _work(found: Evaluation) -> dict[str, Any]:
    """Return the speeds, in clicks per second of CPU time on the one thread that works.

    Training learns a click once per epoch: `train_clicks_learnt` counts each time.
    """
    work: dict[str, Any] = {
        "train_clicks_per_second": round(found.training.per_second),
        "train_clicks_learnt": found.clicks_learnt,
        "train_clicks_learnt_per_second": round(found.clicks_learnt / found.training.seconds),
        "train_cpu_seconds": found.training.seconds,
        "predictions_per_second": round(found.predicting.per_second),
        "versions": found.num_versions,
    }
    if found.task.protocol == "prequential":
        work["learn_clicks_per_second"] = round(found.learning.per_second)
        work["learn_cpu_seconds"] = found.learning.seconds
        work["gate_verdicts"] = found.verdicts
    return work


def _settings(found: Evaluation) -> dict[str, Any]:
    encoder = found.first.bundle.manifest.encoder
    return {
        "k": found.task.k,
        "exclude_seen": found.recorded.exclude_seen,
        "max_predictions": found.task.max_predictions,
        "delay_seconds": found.task.delay_ms / 1_000,
        "seed": found.task.seed,
        "channels": list(found.first.bundle.manifest.channels),
        "diversity": found.task.diversity,
        "exploration": found.task.exploration,
        "family": encoder.family,
        "dim": encoder.dim,
        "negatives": found.settings.learning.negatives,
        "batch_seconds": found.settings.dataset.batch_seconds,
        "publish_seconds": found.settings.publish_seconds,
        "delta_seconds": found.settings.delta_seconds,
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, _DECIMALS) if isinstance(value, float) else value
