"""What must hold when a run is over; it starts nothing and injects nothing.

Replay, ledger and markers are the verifier's (`worker/verify.py`). Added here: what only somebody
who watched the run can know, and what each guarantee promises beyond that.
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
from worker.evidence import Evidence, Partition

_OPEN_STATES = ("Ongoing", "PrepareCommit", "PrepareAbort", "PrepareEpochFence")
_POLL_SECONDS = 0.1
_SETTLE_MORE_SECONDS = 12.0  # brokers look for overdue transactions every 10 s by default
_EXITS = (-9, 137, 0, 75)  # killed by us, at the fail-point, stopped, fenced
_STOPPED_EARLY = 143  # SIGTERM before there was anything to stop
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
    findings = Findings()
    findings.violations += open_transactions(settings)
    report = audit(settings)
    findings.violations += report.violations
    findings.sessions, findings.versions = report.sessions, len(report.model_versions)
    if report.pending:
        findings.violations.append(f"{report.pending} clicks were never answered (I7)")
    exactly_once = settings.processing.guarantee == "exactly_once"
    for partition in _evidence(settings):
        findings.clicks += len(partition.expected)
        _count(partition, findings)
        findings.violations += _differences(partition, seen.get(partition.number, Counter()))
        findings.violations += falls(partition) if exactly_once else deduplicated(partition)
        if exactly_once:
            findings.violations += disagreement(partition)
    if exactly_once and findings.repeated:
        findings.violations.append(f"{findings.repeated} outcomes repeated (I1)")
    if findings.lost:
        findings.violations.append(f"{findings.lost} clicks without an outcome (I1)")
    if findings.applied_twice:
        findings.violations.append(f"{findings.applied_twice} clicks applied twice (I2)")
    if findings.clicks < acknowledged:
        findings.violations.append(
            f"{acknowledged} clicks were acknowledged, {findings.clicks} are in the topic"
        )
    return findings


def exits_as_specified(exits: list[Exit]) -> list[str]:
    """Return a violation for each process that ended otherwise than by us or fenced."""
    return [
        f"slot {end.slot} ended with {end.code} after {end.lived_seconds:.1f} s: "
        + " | ".join(end.process.text.strip().splitlines()[-2:])
        for end in exits
        if end.code not in _EXITS
        and not (end.code == _STOPPED_EARLY and _IN_SERVICE not in end.process.text)
    ]


def open_transactions(settings: Settings) -> list[str]:
    """Return a violation for each transaction that outlives its timeout (I10)."""
    timeout_seconds = settings.processing.transaction_timeout_ms / 1000 + _SETTLE_MORE_SECONDS
    deadline = time.monotonic() + timeout_seconds
    with closing(clients.admin(settings.kafka, client_id="chaos-audit")) as admin:
        while True:
            try:
                listed = admin.list_transactions(state_filters=list(_OPEN_STATES))
                found = [one for group in listed.values() for one in group]
            except KafkaError as error:
                found = [error]
            ours = [f for f in found if settings.kafka.app in str(f) or isinstance(f, KafkaError)]
            if not ours:
                return []
            if time.monotonic() > deadline:
                return [f"transaction left open (I10): {one}" for one in ours]
            time.sleep(_POLL_SECONDS)


def falls(partition: Partition) -> list[str]:
    """Return a violation for each place where the generation falls: a zombie wrote there (I6)."""
    highest = -1
    found = []
    for answer in partition.answers:
        if answer.generation < highest:
            found.append(
                f"recommendations/{partition.number}: click {answer.offset} was answered in "
                f"generation {answer.generation} after {highest} (I6)"
            )
        highest = max(highest, answer.generation)
    return found


def deduplicated(partition: Partition) -> list[str]:
    """Return a violation for each click that the reader's O(1) rule drops or takes twice (I1)."""
    highest = -1
    kept = set()
    for answer in partition.answers:
        if answer.offset > highest:
            highest = answer.offset
            kept.add(answer.offset)
    missing = _due(partition, "recommended") - kept
    return [
        f"clicks/{partition.number}/{offset}: dropping what is not above the highest offset seen "
        "loses its recommendation (I1)"
        for offset in sorted(missing)
    ]


def disagreement(partition: Partition) -> list[str]:
    """Return a violation if the marker is not at the committed offset (I3)."""
    marker = partition.marker
    if (marker.next_offset if marker is not None else 0) == partition.committed:
        return []
    return [f"partition {partition.number}: {partition.committed} committed, marker {marker} (I3)"]


def _differences(partition: Partition, seen: Counter[int]) -> list[str]:
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


def _count(partition: Partition, findings: Findings) -> None:
    answers = Counter(answer.offset for answer in partition.answers)
    letters = Counter(offset for offset, _ in partition.dead)
    for outcome, copies in (("recommended", answers), ("dead", letters)):
        findings.lost += sum(1 for offset in _due(partition, outcome) if not copies[offset])
        findings.repeated += sum(count - 1 for count in copies.values())
    applied: Counter[str] = Counter()
    for offset in _due(partition, "recommended") & answers.keys():
        event = partition.expected[offset].event
        assert event is not None
        applied[event.user_id] += 1
    for user_id, record in partition.sessions.items():
        findings.applied_twice += max(0, record.n - applied[user_id])


def _due(partition: Partition, outcome: str) -> set[int]:
    return {
        offset
        for offset, expected in partition.expected.items()
        if offset < partition.committed and expected.outcome == outcome
    }


def _evidence(settings: Settings) -> list[Partition]:
    ttl_days = settings.worker.sessions.ttl_days
    with closing(clients.admin(settings.kafka, client_id="chaos-audit")) as admin:
        committed: dict[int, int | None] = dict(committed_offsets(admin, settings))
    with closing(clients.reader(settings.kafka, client_id="chaos-audit")) as reader:
        evidence = Evidence(reader, reader, settings.topics, ttl_days=ttl_days)
        return list(evidence.partitions(committed))


def within(condition: Callable[[], bool], seconds: float, tick: Callable[[], None]) -> bool:
    """Wait for a condition at most so long, calling `tick` meanwhile; tells whether it came."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        tick()
        time.sleep(_POLL_SECONDS / 4)
    return True
