"""Whether every click of a partition has its outcome, once and in order, and the ledger says so.

What the sessions are is not looked at here. I1 to I6 are the invariants of docs/guarantees.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from worker.evidence import Answer, Partition
from worker.replay import Expected
from worker.report import Report


def check_outcomes(partition: Partition, report: Report, committed_now: int) -> None:
    """Check I1: every click below the committed offset has its outcome and no other.

    From `exact_from` on it is there once, and no click from `committed_now` on has one yet.
    """
    answered = Counter(answer.offset for answer in partition.answers)
    letters = Counter(offset for offset, _ in partition.dead)
    dead_for = dict(partition.dead)
    for offset, expected in partition.expected.items():
        found = {"recommended": answered[offset], "dead": letters[offset]}
        place = f"clicks/{partition.number}/{offset}"
        if offset < partition.start:
            report.before_start += 1
        elif offset >= partition.committed:
            report.pending += 1
            if any(found.values()) and offset >= committed_now and _exact(partition, offset):
                report.violate(f"{place}: has an outcome, but only {committed_now} is committed")
        else:
            report.clicks += 1
            _count(expected, report)
            copies = _check_outcome(place, expected, found, dead_for.get(offset, ""), report)
            report.repeated += max(0, copies - 1)
            if copies > 1 and _exact(partition, offset):
                report.violate(f"{place}: {expected.outcome} {copies} times, must be once")
    if partition.misplaced:
        report.violate(
            f"recommendations/{partition.number}: {partition.misplaced} name clicks from elsewhere"
        )


def check_order(partition: Partition, report: Report) -> None:
    """Check that a reader who drops what does not reach further keeps every outcome once (I1).

    Generations do not fall (I6) and no answer is a repeat, from `exact_from` on; before that a
    stalled member may write late, and falls are counted.
    """
    _check_rising((a.offset for a in partition.answers), partition, "recommendations", report)
    _check_rising((offset for offset, _ in partition.dead), partition, "dead letters", report)
    highest = highest_exact = -1
    for answer in partition.answers:
        place = f"clicks/{partition.number}/{answer.offset}"
        report.stale_generations += answer.generation < highest
        highest = max(highest, answer.generation)
        if not _exact(partition, answer.offset):
            continue
        if answer.generation < highest_exact:
            report.violate(
                f"{place}: answered in generation {answer.generation} after {highest_exact}"
            )
        highest_exact = max(highest_exact, answer.generation)
        if answer.replayed:
            report.violate(f"{place}: answered as a repeat, must be answered once")


def check_counts_of_users(partition: Partition, report: Report) -> None:
    """Check I4 where every outcome is there once: per user, `n` rises by one in output order."""
    reached: dict[str, Answer] = {}
    begin = partition.rebuilt.next_offset if partition.rebuilt is not None else 0
    for answer in partition.answers:
        expected = partition.expected.get(answer.offset)
        click = expected.event if expected is not None else None
        if click is None or not click.consent:
            continue
        if answer.offset < begin or not _exact(partition, answer.offset):
            continue
        last = reached.get(click.user_id)
        reached[click.user_id] = answer
        if last is None or answer.n == last.n + 1:
            continue
        if answer.n > 1 or last.offset not in partition.evictions.get(click.user_id, ()):
            report.violate(
                f"clicks/{partition.number}/{answer.offset}: click {answer.n} of its user, "
                f"answered after click {last.n}"
            )


def check_marker(
    partition: Partition, report: Report, committed_now: int, *, earliest: bool
) -> None:
    """Check the ledger, and I3: the marker is at the committed offset, or just ahead of it."""
    marker = partition.marker
    place = f"marker of partition {partition.number}"
    if marker is None:
        if partition.committed:
            report.violate(f"{place}: missing, though {partition.committed} is committed")
        return
    report.guarantees[marker.guarantee] += 1
    if marker.unfinished:
        report.violate(f"{place}: a rebuild of the sessions was not finished")
        return
    if marker.next_offset < partition.committed:
        report.violate(f"{place}: {marker.next_offset} is below the commit {partition.committed}")
    if partition.exact_from is not None and marker.next_offset > committed_now:
        report.violate(f"{place}: {marker.next_offset} is above the commit {committed_now}")
    first = min(partition.expected, default=0)
    if earliest and marker.start > first:
        report.violate(f"{place}: counts begin at {marker.start}, there are clicks from {first} on")
    _check_counts(partition, place, report)


def _check_counts(partition: Partition, place: str, report: Report) -> None:
    marker = partition.marker
    assert marker is not None
    due = [
        expected
        for offset, expected in partition.expected.items()
        if marker.start <= offset < marker.next_offset
    ]
    counts = Counter(expected.outcome for expected in due)
    skipped = Counter(expected.reason for expected in due if expected.outcome == "skipped")
    stated = (marker.seen, marker.recommended, marker.dead, Counter(marker.skipped))
    if marker.lost:
        # Which clicks were passed over is not on record, only how many.
        total = marker.recommended + marker.dead + sum(marker.skipped.values())
        right = marker.seen == total and marker.seen + marker.lost == len(due)
    else:
        right = stated == (len(due), counts["recommended"], counts["dead"], skipped)
    if not right:
        report.violate(
            f"{place}: counts {stated} and {marker.lost} lost, a replay gives {len(due)}, "
            f"{dict(counts)}"
        )


def _count(expected: Expected, report: Report) -> None:
    if expected.outcome == "recommended":
        report.recommendations += 1
    elif expected.outcome == "dead":
        report.dead_letters += 1
    else:
        report.skipped[expected.reason] += 1


def _check_outcome(
    place: str, expected: Expected, found: dict[str, int], dead_for: str, report: Report
) -> int:
    """Return how many copies of its outcome a click has."""
    copies = found.pop(expected.outcome, 0)
    if any(found.values()):
        report.violate(f"{place}: must be {expected.outcome}, has another outcome")
    if expected.outcome == "skipped":
        return 0
    if not copies:
        report.lost += 1
        report.violate(f"{place}: lost, it has no outcome")
    elif expected.outcome == "dead" and dead_for != expected.reason:
        report.violate(f"{place}: dead for {dead_for}, must be for {expected.reason}")
    return copies


def _check_rising(offsets: Iterable[int], partition: Partition, name: str, report: Report) -> None:
    highest = partition.start - 1
    seen: set[int] = set()
    for offset in offsets:
        late = partition.start <= offset < highest and offset not in seen
        if late and offset < partition.committed:
            report.violate(
                f"clicks/{partition.number}/{offset}: first of its {name} after that of {highest}: "
                "a reader that drops repeats loses it"
            )
        seen.add(offset)
        highest = max(highest, offset)


def _exact(partition: Partition, offset: int) -> bool:
    return partition.exact_from is not None and offset >= partition.exact_from
