"""What must hold when a run is over; it starts nothing and injects nothing.

Ledger, order, replay, markers and generations are the verifier's (`worker/verify.py`). Added here:
what only somebody who watched the run can know.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

from kafka.errors import KafkaError

from benchmarks.chaos.supervisor import Exit
from benchmarks.chaos.system import committed_offsets
from cli.settings import Settings
from cli.verify import audit
from stream import clients
from stream.transactions import open_transactions
from worker.evidence import Evidence, Partition

_POLL_SECONDS = 0.1
_FETCH_WAIT_MS = 20
_SETTLE_MORE_SECONDS = 12.0  # brokers look for overdue transactions every 10 s by default
_EXITS = (-9, 137, 0, 75)  # killed by us, at the fail-point, stopped, fenced
_STOPPED_EARLY = (-15, 143)  # by SIGTERM before there was anything to stop
_IN_SERVICE = "waiting for a model"


@dataclass
class Findings:
    """Counts of one run and every violation in words."""

    clicks: int = 0
    lost: int = 0
    repeated: int = 0
    applied_twice: int = 0
    sessions: int = 0
    versions: int = 0
    violations: list[str] = field(default_factory=list)


def examine(settings: Settings, seen: dict[int, Counter[int]], acknowledged: int) -> Findings:
    """Read all topics of a run that is over and quiet, and judge them.

    `seen` is what a read_committed reader saw beside the workers, `acknowledged` how many clicks
    the brokers took.
    """
    settings = _impatient(settings)
    left_open = transactions_left_open(settings)
    exactly_once = settings.processing.guarantee == "exactly_once"
    report = audit(settings, exactly_once=exactly_once)
    findings = Findings(
        lost=report.lost,
        repeated=report.repeated,
        sessions=report.sessions,
        versions=len(report.model_versions),
        violations=left_open + report.violations,
    )
    with (
        closing(clients.admin(settings.kafka, client_id="chaos-audit")) as admin,
        closing(clients.reader(settings.kafka, client_id="chaos-audit")) as reader,
    ):
        ttl_days = settings.worker.sessions.ttl_days
        evidence = Evidence(reader, reader, settings.topics, ttl_days=ttl_days)
        for partition in evidence.partitions(dict(committed_offsets(admin, settings))):
            findings.clicks += len(partition.expected)
            findings.applied_twice += applied_twice(partition)
            findings.violations += differences(partition, seen.get(partition.number, Counter()))
    findings.violations += _shortfalls(findings, report.pending, acknowledged)
    return findings


def _impatient(settings: Settings) -> Settings:
    """Have readers wait less: each topic's partition ends with one wait for more records."""
    consumer = settings.kafka.consumer | {"fetch_max_wait_ms": _FETCH_WAIT_MS}
    kafka = settings.kafka.model_copy(update={"consumer": consumer})
    return settings.model_copy(update={"kafka": kafka})


def _shortfalls(findings: Findings, pending: int, acknowledged: int) -> list[str]:
    found = []
    if pending:
        found.append(f"{pending} clicks were never answered (I7)")
    if findings.applied_twice:
        found.append(f"{findings.applied_twice} clicks applied twice (I2)")
    if findings.clicks < acknowledged:
        found.append(f"{acknowledged} clicks were acknowledged, {findings.clicks} are in the topic")
    return found


def exits_as_specified(exits: list[Exit]) -> list[str]:
    """Return a violation for each process that ended otherwise than by us or fenced."""
    return [
        f"slot {end.slot} ended with {end.code} after {end.lived_seconds:.1f} s: "
        + " | ".join(end.process.text.strip().splitlines()[-2:])
        for end in exits
        if end.code not in _EXITS
        and not (end.code in _STOPPED_EARLY and _IN_SERVICE not in end.process.text)
    ]


def transactions_left_open(settings: Settings) -> list[str]:
    """Return a violation for each transaction that outlives its timeout (I10)."""
    timeout_seconds = settings.processing.transaction_timeout_ms / 1000 + _SETTLE_MORE_SECONDS
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            left = open_transactions(settings.kafka)
        except KafkaError as error:
            left = {repr(error): 0.0}
        if not left:
            return []
        if time.monotonic() > deadline:
            return [f"transaction left open (I10): {name}" for name in left]
        time.sleep(_POLL_SECONDS)


def differences(partition: Partition, seen: Counter[int]) -> list[str]:
    """Return a violation if a concurrent reader saw other answers than stand at the end (I5)."""
    standing = Counter(answer.offset for answer in partition.answers)
    found = []
    for excess, words in ((standing - seen, "never saw"), (seen - standing, "alone saw")):
        if excess:
            some = sorted(excess)[:5]
            found.append(
                f"recommendations/{partition.number}: the reader {words} {excess.total()} "
                f"answers, such as of clicks {some} (I5)"
            )
    return found


def applied_twice(partition: Partition) -> int:
    """Count the clicks that sessions hold beyond those that were answered, each counted once."""
    answered = {answer.offset for answer in partition.answers}
    applied: Counter[str] = Counter()
    for offset, expected in partition.expected.items():
        if expected.event is not None and expected.outcome == "recommended" and offset in answered:
            applied[expected.event.user_id] += 1
    return sum(
        max(0, record.n - applied[user_id]) for user_id, record in partition.sessions.items()
    )


def within(condition: Callable[[], bool], seconds: float, tick: Callable[[], None]) -> bool:
    """Wait for a condition at most so long, calling `tick` meanwhile; tells whether it came."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        tick()
        time.sleep(_POLL_SECONDS / 4)
    return True
