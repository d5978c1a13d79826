"""Brokers that die, roll and freeze under load: what is lost, and how long answers stop.

    python -m benchmarks.failover --rounds 3 --json

Three brokers, replication 3, min.insync.replicas 2; one application of each guarantee, both under
load all the time, each with two workers. Faults come one at a time (kill -9 of the leader of a
clicks, sessions or recommendations partition, of the transaction coordinator, of the group
coordinator), then rolling (kill -9 of every broker, a clean restart of every broker); the next one
strikes when every replica is in sync again. At the end every invariant is checked. Recovery is the
time from the fault until the committed offsets of every partition move again; pauses below a second
are the rhythm of batches and count as 0. Exit code 1 on any violation. Caveats: brokers, workers
and load share the machine; brokers count each other as dead after 3 s (`broker.session.timeout.ms`,
9 s by default) and that is most of what is measured.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.chaos.nursery import Nursery
from benchmarks.cluster import BROKERS, GUARANTEES, Cluster, Recoveries, make_stage
from benchmarks.environment import environment
from benchmarks.options import Help
from index.threads import use_threads
from stream.local_kafka import LocalKafka

FAULTS: dict[str, Callable[[Cluster], Recoveries]] = {
    "kill -9 of a leader of clicks": lambda cluster: cluster.kill_leader("clicks"),
    "kill -9 of a leader of sessions": lambda cluster: cluster.kill_leader("sessions"),
    "kill -9 of a leader of recommendations": lambda cluster: cluster.kill_leader(
        "recommendations"
    ),
    "kill -9 of a transaction coordinator": Cluster.kill_transaction_coordinator,
    "kill -9 of the group coordinator": Cluster.kill_group_coordinator,
    "kill -9 of every broker in turn": Cluster.kill_each,
    "clean restart of every broker in turn": Cluster.restart_each,
}


def main() -> None:
    """Parse the options, strike, print; exit with 1 on any violation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    use_threads(1)
    directory = Path(tempfile.mkdtemp(prefix="nextclick-failover-"))
    report = run(directory, rounds=options.rounds, seed=options.seed)
    print(json.dumps(report)) if options.json else print_table(report)
    if report["violations"]:
        print(f"the workers' logs are in {directory}", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(directory)


def run(directory: Path, *, rounds: int, seed: int) -> dict[str, Any]:
    """Return recovery seconds per fault and guarantee, counts, and violations."""
    recovery: dict[str, dict[str, list[float]]] = {}
    with LocalKafka(directory / "kafka", brokers=BROKERS) as kafka, Nursery() as nursery:
        stage = make_stage(kafka, nursery, directory)
        with Cluster(kafka, stage, seed=seed) as cluster:
            for name, strike in [*FAULTS.items()] * rounds:
                for guarantee, seconds in strike(cluster):
                    recovery.setdefault(name, {}).setdefault(guarantee, []).append(seconds)
            findings = cluster.finish()
    return {
        "recovery_seconds": recovery,
        "clicks": {guarantee: found.clicks for guarantee, found in findings.items()},
        "lost": {guarantee: found.lost for guarantee, found in findings.items()},
        "repeated": {guarantee: found.repeated for guarantee, found in findings.items()},
        "violations": [
            f"{guarantee}: {violation}"
            for guarantee, found in findings.items()
            for violation in found.violations
        ],
        "rounds": rounds,
        "seed": seed,
        **environment(),
    }


def print_table(report: dict[str, Any]) -> None:
    """Print a row for each fault, then every violation in words."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    table = Table("recovery in seconds after", *GUARANTEES)
    for name, by_guarantee in report["recovery_seconds"].items():
        table.add_row(name, *(" ".join(f"{s:.1f}" for s in by_guarantee.get(guarantee, ()))
                              for guarantee in GUARANTEES))  # fmt: skip
    for count in ("clicks", "lost", "repeated"):
        table.add_row(count, *(f"{report[count][guarantee]:,}" for guarantee in GUARANTEES))
    console.print(table)
    for violation in report["violations"]:
        console.print(violation, markup=False)


if __name__ == "__main__":
    main()
