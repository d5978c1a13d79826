"""Members that come, go and die under load: is anything lost, doubled or left unanswered?

    python -m benchmarks.membership --seeds 10 --json

Two scenarios, seed after seed on one broker, each application with four partitions. `scale`: 1, 3,
2, 4, 1 and 2 workers, then a rolling restart; on the way a random worker is killed (kill -9).
`churn`: every second for 20 seconds a worker joins, leaves, is killed, or is frozen for longer than
the session timeout; one stays. Each with dynamic and static members, under both guarantees. At the
end every invariant is checked. Exit code 1 on any violation. Caveats: one broker, replication 1; a
session timeout of 2 s, so that dead members are missed soon; workers fork from a process that has
done their imports, a cold start takes some 4 s longer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.chaos.nursery import Nursery
from benchmarks.cluster import GUARANTEES, make_stage
from benchmarks.environment import environment
from benchmarks.members import MEMBERS, SCENARIOS, Order, Outcome, run
from benchmarks.options import Help
from index.threads import use_threads
from stream.local_kafka import LocalKafka


def main() -> None:
    """Parse the options, run the seeds, print; exit with 1 on any violation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--scenario", choices=SCENARIOS, action="append")
    parser.add_argument("--members", choices=MEMBERS, action="append")
    parser.add_argument("--guarantee", choices=GUARANTEES, action="append")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    use_threads(1)
    directory = Path(tempfile.mkdtemp(prefix="nextclick-membership-"))
    orders = [
        Order(*kind, seed)
        for seed in range(options.first_seed, options.first_seed + options.seeds)
        for kind in product(
            options.scenario or SCENARIOS,
            options.members or MEMBERS,
            options.guarantee or GUARANTEES,
        )
    ]
    outcomes = list(run_all(orders, directory))
    print(json.dumps(as_json(outcomes))) if options.json else print_table(outcomes)
    if any(outcome.findings.violations for outcome in outcomes):
        print(f"the workers' logs are in {directory}", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(directory)


def run_all(orders: list[Order], directory: Path) -> Iterator[Outcome]:
    """Run one order after the other on one broker, and say on stderr how each ended."""
    with LocalKafka(directory / "kafka") as kafka, Nursery() as nursery:
        stage = make_stage(kafka, nursery, directory)
        for order in orders:
            outcome = run(order, stage)
            found = outcome.findings
            print(
                f"{order}: {found.clicks} clicks, {found.lost} lost, {found.repeated} repeated, "
                f"violations {found.violations}",
                file=sys.stderr,
            )
            yield outcome


def as_json(outcomes: list[Outcome]) -> dict[str, object]:
    """Return the figures of every run, and what they were measured on."""
    return {"runs": [asdict(outcome) for outcome in outcomes], **environment()}


def print_table(outcomes: list[Outcome]) -> None:
    """Print a row for each kind of run with its counts, then every violation in words."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    table = Table("scenario", "members", "guarantee", "seeds", "clicks", "lost",
                  "repeated", "applied twice", "violations", "longest pause s")  # fmt: skip
    kinds: dict[tuple[str, str, str], list[Outcome]] = {}
    for outcome in outcomes:
        order = outcome.order
        kind = (order.scenario, order.members, order.guarantee)
        kinds.setdefault(kind, []).append(outcome)
    for kind, runs in sorted(kinds.items()):
        table.add_row(*kind, *_counts(runs))
    console.print(table, markup=False)
    for outcome in outcomes:
        for violation in outcome.findings.violations:
            console.print(f"{outcome.order}: {violation}", markup=False)


def _counts(runs: list[Outcome]) -> list[str]:
    found = [outcome.findings for outcome in runs]
    counts = (
        *(len(runs), sum(f.clicks for f in found), sum(f.lost for f in found)),
        *(sum(f.repeated for f in found), sum(f.applied_twice for f in found)),
        sum(len(f.violations) for f in found),
    )
    longest = max(outcome.longest_pause_seconds for outcome in runs)
    return [*(f"{count:,}" for count in counts), f"{longest:.1f}"]


if __name__ == "__main__":
    main()
