"""Figures of a soak from what was sampled: recovery times, growth of memory; samples nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.chaos.system import Reading

_GAP_SECONDS = 1.5  # brokers that do not say where the group stands count as not recovered
_WARM_UP_SECONDS = 60.0
_WARM_UP_SHARE = 1 / 3
_LEAST_SECONDS = 180.0


@dataclass(frozen=True)
class Begun:
    """A fault that happened."""

    kind: str
    target: str
    at: float


@dataclass(frozen=True)
class Growth:
    """How the memory of the longest-lived worker has grown after its warm-up.

    `mib_each_minute` is its whole life, warm-up too.
    """

    process: str
    minutes: float
    first_mib: float
    last_mib: float
    slope_percent_per_hour: float
    mib_each_minute: list[float]


def recovery_seconds(
    readings: Sequence[Reading], start: float, end: float, max_lag: int
) -> float | None:
    """Return the seconds from `start` until the lag was normal for good, None if it never was.

    Readings count up to `end`; 0 when the lag never was above `max_lag`. A gap between readings
    longer than 1.5 s counts as lag.
    """
    last_bad = None
    before = start
    for reading in readings:
        if reading.at > end:
            break
        if reading.at >= start:
            if reading.at - before > _GAP_SECONDS:
                last_bad = before
            if reading.lag > max_lag:
                last_bad = reading.at
            before = reading.at
    if end - before > _GAP_SECONDS:
        return None
    if last_bad is None:
        return 0.0
    good = [r.at for r in readings if last_bad < r.at <= end and r.lag <= max_lag]
    return good[0] - start if good else None


def growth(samples: dict[str, list[tuple[float, int]]]) -> Growth | None:
    """Return the growth of the process that was sampled longest; None when none lived long enough.

    `samples` are (seconds, bytes) by process. The first minute, or third of its life if that is
    longer, is warm-up: a lone worker at 300 clicks a second grew for eight minutes, by ever less,
    and then not at all. The slope is Theil and Sen's, the median of all pairwise slopes, relative
    to the median size: single peaks, such as two versions in memory, do not move it.
    """
    if not samples:
        return None
    name, series = max(samples.items(), key=lambda item: item[1][-1][0] - item[1][0][0])
    begin, end = series[0][0], series[-1][0]
    warm = begin + max(_WARM_UP_SECONDS, _WARM_UP_SHARE * (end - begin))
    kept = np.array([sample for sample in series if sample[0] >= warm], dtype=np.float64)
    if end - warm < _LEAST_SECONDS:
        return None
    seconds, sizes = kept[:, 0], kept[:, 1]
    first, second = np.triu_indices(len(kept), k=1)
    slope = np.median((sizes[second] - sizes[first]) / (seconds[second] - seconds[first]))
    return Growth(
        process=name,
        minutes=round(float(end - warm) / 60, 1),
        first_mib=round(float(sizes[0]) / 2**20, 1),
        last_mib=round(float(sizes[-1]) / 2**20, 1),
        slope_percent_per_hour=round(float(100 * 3600 * slope / np.median(sizes)), 2),
        mib_each_minute=_each_minute(series),
    )


def _each_minute(series: list[tuple[float, int]]) -> list[float]:
    minutes: dict[int, float] = {}
    for at, size in series:
        minutes.setdefault(int((at - series[0][0]) // 60), round(size / 2**20, 1))
    return list(minutes.values())


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Return median and maximum."""
    return {"p50": round(float(np.median(seconds)), 1), "max": round(max(seconds), 1)}
