"""Soak test: workers under load, a fault every 15 seconds, and every invariant at the end.

    python -m benchmarks.chaos --minutes 20 --seed 1 --json

Real processes throughout: brokers, supervised workers started as an operator would, a load with
poison, duplicates and misrouted clicks in it, a read_committed reader beside them, model versions
every 30 s. Faults are drawn in rounds of all kinds: kill_worker (kill -9), pause_worker (SIGSTOP
beyond the session timeout), kill_broker (kill -9, back after 4 s), pause_broker (SIGSTOP for 6 s),
rebalance (a worker leaves, or comes back), poison_burst (30 % for 8 s), swap_storm (a version a
second for 10 s). The next one waits until the lag is normal again (below one second of load).
Recovery runs from a fault's begin, so it holds the pause itself. Memory: the longest-lived worker's
resident size after warm-up, median of all pairwise slopes; slot `a` is never hurt by itself, so
that there is a long life to look at. It ends by itself, and Ctrl-C ends all it has started. Exit
code 1 on any violation. Caveats: all processes share this machine's cores, so recovery times hold
the cold start of a worker (some 4 s of CPU) and of a broker under full load.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from benchmarks.chaos.soak import Order, Soak
from benchmarks.environment import environment
from benchmarks.options import Help
from index.threads import use_threads

_INTERRUPTED = 130


def main() -> None:
    """Parse the options, run the soak, print; exit with 1 on any violation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=3)
    parser.add_argument(
        "--guarantee", choices=("at_least_once", "exactly_once"), default="exactly_once"
    )
    parser.add_argument("--clicks-per-second", type=float, default=300.0)
    parser.add_argument("--json", action="store_true")
    options = vars(parser.parse_args())
    as_json = options.pop("json")
    torch.set_num_threads(1)
    use_threads(1)
    order = Order(**options)
    directory = Path(tempfile.mkdtemp(prefix="nextclick-chaos-"))
    try:
        with _progress(order.minutes) as report:
            figures = Soak(order, directory, report).run()
    except KeyboardInterrupt:
        shutil.rmtree(directory, ignore_errors=True)
        sys.exit(_INTERRUPTED)
    figures |= asdict(order) | environment()
    if as_json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:28} {value}")
    if figures["violations"]:
        print(f"the workers' logs are in {directory}", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(directory)


@contextmanager
def _progress(minutes: float) -> Iterator[Callable[[float, str], None]]:
    console = Console(stderr=True)
    with Progress(console=console, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("starting", total=60 * minutes)

        def report(elapsed: float, what: str) -> None:
            progress.update(task, completed=elapsed, description=what)

        yield report


if __name__ == "__main__":
    main()
