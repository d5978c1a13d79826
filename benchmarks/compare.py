"""Two results of one benchmark, figure by figure: is the second one worse?

    python -m benchmarks.worker --items 100000 --json > now.json
    python -m benchmarks.compare docs/benchmarks/worker-full-100k.json now.json --tolerance 0.15

Exit code 1 when a figure is worse by more than the tolerance. Only figures whose name says which
way is better are judged: times, memory and CPU down, rates and recall up. Results of different
machines or settings are compared all the same, with what differs printed first.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.options import Help

_DOWN: Final = ("_us", "_ms", "_seconds", "_mib", "_bytes", "cpu_ratio", "pause")
_UP: Final = ("_per_second", "recall")
_LEAST: Final = 1e-9


class Pair(NamedTuple):
    """One figure before and now; `better` is -1 where less is better, 1 where more is, else 0."""

    name: str
    before: float
    now: float
    better: int

    @property
    def change(self) -> float:
        """The relative change."""
        return self.now / self.before - 1 if abs(self.before) > _LEAST else 0.0

    def worse(self, tolerance: float) -> bool:
        """Whether it is worse by more than the tolerance."""
        return self.better * self.change < -tolerance


def main() -> int:
    """Print the table and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("before", type=Path)
    parser.add_argument("now", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.1, help="0.1: ten percent are noise")
    options = parser.parse_args()
    before, now = (json.loads(path.read_text()) for path in (options.before, options.now))
    for name, values in differences(before, now):
        print(f"differs: {name}: {values[0]} -> {values[1]}")
    compared = pairs(before, now)
    for pair in compared:
        mark = "  WORSE" if pair.worse(options.tolerance) else ""
        print(f"{pair.name:44} {pair.before:>12g} {pair.now:>12g} {pair.change:+8.1%}{mark}")
    return int(any(pair.worse(options.tolerance) for pair in compared))


def pairs(before: Any, now: Any) -> list[Pair]:
    """Return the figures that both results have and whose name says which way is better."""
    first, second = dict(_leaves(before)), dict(_leaves(now))
    return [
        Pair(name, float(first[name]), float(second[name]), better)
        for name in first
        if (better := _better(name)) and name in second and _are_numbers(first[name], second[name])
    ]


def differences(before: Any, now: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield what else is not the same: settings, versions, machine."""
    first, second = dict(_leaves(before)), dict(_leaves(now))
    for name in sorted(first.keys() | second.keys()):
        values = first.get(name), second.get(name)
        if not _better(name) and values[0] != values[1]:
            yield name, values


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{name}[{number}]")
    else:
        yield name, value


def _better(name: str) -> int:
    """Judge by the name of any part: `stages_us.poll` are microseconds."""
    parts = name.split(".")
    if any(part.endswith(_UP) or part.startswith("recall") for part in parts):
        return 1
    return -1 if any(part.endswith(_DOWN) or "_us_" in part for part in parts) else 0


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) for value in values)


if __name__ == "__main__":
    sys.exit(main())
