"""Kill workers at every dangerous moment, seed after seed, and check that nothing is lost.

    python -m benchmarks.kills --seeds 50 --guarantee both

Per seed a fresh application on one broker, under a steady load with poison in it: two named
fail-points (the process ends itself when it gets there) and one kill -9 at a random time, in one
worker slot or spread over two, a third of the seeds with static members. A supervisor restarts each
slot. At the end every invariant is checked: ledger, replay, markers, a concurrent reader, fencing.
Recovery is the time from the last death until every partition went on. Exit code 1 on any
violation. Caveats: one broker, replication 1; workers fork from a process that has done their
imports (a cold start takes some 4 s longer); a fail-point names a place in the client's calls, so
it strikes between two steps of the protocol, while the random kills strike anywhere.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.chaos.crashing import NAMES
from benchmarks.chaos.lives import SESSION_SECONDS, Outcome, run_seed
from benchmarks.chaos.nursery import Nursery
from benchmarks.chaos.versions import Versions
from benchmarks.environment import environment
from benchmarks.options import Help
from benchmarks.under_load import NUM_ITEMS, Stage
from index.threads import use_threads
from stream.local_kafka import LocalKafka

GUARANTEES = ("at_least_once", "exactly_once")
_NUM_VERSIONS = 30
_INTERRUPTED = 130


def main() -> None:
    """Parse the options, run the seeds, print; exit with 1 on any violation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--guarantee", choices=(*GUARANTEES, "both"), default="both")
    parser.add_argument(
        "--max-recovery-seconds",
        type=float,
        default=SESSION_SECONDS + 5.0,
        help="longer is a violation; allow more on a machine that has other work",
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    use_threads(1)
    directory = Path(tempfile.mkdtemp(prefix="nextclick-kills-"))
    try:
        outcomes = _outcomes(options, directory)
    except KeyboardInterrupt:
        shutil.rmtree(directory, ignore_errors=True)
        sys.exit(_INTERRUPTED)
    print(json.dumps(as_json(outcomes))) if options.json else print_table(outcomes)
    if any(outcome.findings.violations for outcome in outcomes):
        print(f"the workers' logs are in {directory}", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(directory)


def _outcomes(options: argparse.Namespace, directory: Path) -> list[Outcome]:
    guarantees = GUARANTEES if options.guarantee == "both" else (options.guarantee,)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    order = [(seed, guarantee) for seed in seeds for guarantee in guarantees]
    with (
        Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress,
        closing(run(order, directory, options.max_recovery_seconds)) as outcomes,
    ):
        return list(progress.track(outcomes, total=len(order), description="seeds"))


def run(
    order: list[tuple[int, str]], directory: Path, max_recovery_seconds: float
) -> Generator[Outcome, None, None]:
    """Run seed after seed on one broker."""
    store_url = str(directory / "models")
    versions = Versions(store_url, num_items=NUM_ITEMS, seed=0)
    first, *others = [versions.publish() for _ in range(_NUM_VERSIONS)]
    with LocalKafka(directory / "kafka") as kafka, Nursery() as nursery:
        stage = Stage(kafka.bootstrap_servers, store_url, first, nursery, directory / "workers")
        for seed, guarantee in order:
            yield run_seed(
                *(seed, guarantee, stage),
                versions=others,
                max_recovery_seconds=max_recovery_seconds,
            )


def as_json(outcomes: list[Outcome]) -> dict[str, Any]:
    """Return the figures of every seed, and what they were measured on."""
    return {
        "seeds": [asdict(outcome) for outcome in outcomes],
        "reached": {
            guarantee: dict(reached_counts(outcomes, guarantee)) for guarantee in GUARANTEES
        },
        **environment(),
    }


def reached_counts(outcomes: list[Outcome], guarantee: str) -> Counter[str]:
    """Return how often each fail-point was reached."""
    return Counter(
        point.partition(":")[0]
        for outcome in outcomes
        if outcome.guarantee == guarantee
        for point in outcome.reached
    )


def print_table(outcomes: list[Outcome]) -> None:
    """Print a row for each seed, the fail-points' counts, and every violation in words."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    table = Table("seed", "guarantee", "slots", "fail-points reached (exit 137)", "not reached",
                  "kills", "clicks", "lost", "repeated", "applied twice", "violations",
                  "recovery s", "took s")  # fmt: skip
    for outcome in outcomes:
        table.add_row(*_row(outcome))
    console.print(table, markup=False)
    counts = Table("fail-point reached", *GUARANTEES)
    reached = {guarantee: reached_counts(outcomes, guarantee) for guarantee in GUARANTEES}
    for name in NAMES:
        counts.add_row(name, *(str(reached[guarantee][name]) for guarantee in GUARANTEES))
    console.print(counts, markup=False)
    for outcome in outcomes:
        for violation in outcome.findings.violations:
            console.print(f"seed {outcome.seed}, {outcome.guarantee}: {violation}", markup=False)


def _row(outcome: Outcome) -> list[str]:
    findings = outcome.findings
    slots = str(len(outcome.plan.deaths)) + (" static" if outcome.plan.static_members else "")
    counts = (findings.clicks, findings.lost, findings.repeated, findings.applied_twice)
    return [
        *(str(outcome.seed), outcome.guarantee, slots),
        *(", ".join(outcome.reached), ", ".join(outcome.missed), str(outcome.kills)),
        *(f"{count:,}" for count in counts),
        str(len(findings.violations)),
        f"{outcome.recovery_seconds:.1f}",
        f"{outcome.seconds:.1f}",
    ]


if __name__ == "__main__":
    main()
