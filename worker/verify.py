"""Check the ledger and the sessions of a running or stopped system against a replay of its clicks.

It reads topics only: every click has exactly one outcome, and every session is what a clean
single-threaded replay of its clicks gives under the versions that the recommendations name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from model.bundle import Bundle
from stream.changelog import SessionRecord
from stream.headers import Provenance
from stream.kafka_types import KafkaConsumer
from stream.settings import TopicSettings
from worker.evidence import Partition, read_evidence
from worker.replay import Expected, ReplayedSession
from worker.settings import SessionSettings
from worker.standing import standing_answers

_MAX_VIOLATIONS = 1000
_HIDDEN_TOLERANCE = 1e-5


@dataclass
class Report:
    """What was counted, and every violation in words (the first thousand)."""

    clicks: int = 0
    recommendations: int = 0
    dead_letters: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    pending: int = 0
    sessions: int = 0
    states: int = 0
    model_versions: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def violate(self, text: str) -> None:
        """Add a violation."""
        if len(self.violations) < _MAX_VIOLATIONS:
            self.violations.append(text)


class Verifier:
    """Read the topics of one application and compare them with each other."""

    def __init__(
        self,
        reader: KafkaConsumer,
        topics: TopicSettings,
        settings: SessionSettings,
        load_version: Callable[[str], Bundle | None],
    ) -> None:
        self._reader = reader
        self._topics = topics
        self._settings = settings
        self._load_version = load_version

    def verify(self, committed: dict[int, int | None]) -> Report:
        """Return the report; `committed` is the workers' group offset of every clicks partition."""
        report = Report()
        ttl_ms = int(self._settings.ttl_days * 86_400_000)
        partitions = read_evidence(self._reader, self._topics, committed, ttl_ms=ttl_ms)
        for partition in partitions:
            _check_ledger(partition, report)
            _check_marker(partition, report)
        replayed = {p.number: self._replay(p, report) for p in partitions}
        for partition in partitions:
            _check_sessions(partition, replayed[partition.number], report)
        self._check_states(partitions, replayed, report)
        report.model_versions = sorted({a.model for p in partitions for a in p.answers})
        return report

    def _replay(self, partition: Partition, report: Report) -> dict[str, ReplayedSession]:
        """Apply the answered clicks in output order; checks n and digest of every answer."""
        return {
            user_id: self._replay_user(partition, user_id, answers, report)
            for user_id, answers in standing_answers(partition).items()
        }

    def _replay_user(
        self, partition: Partition, user_id: str, answers: list[Provenance], report: Report
    ) -> ReplayedSession:
        evicted_at = partition.evictions.get(user_id, ())
        session = ReplayedSession()
        for i, answer in enumerate(answers):
            if session.last_offset in evicted_at:
                # Repeats of what was evicted are answered without applying it again.
                session = ReplayedSession(last_offset=session.last_offset)
            if answer.replayed and not answer.n:
                continue  # repeated after its user was evicted: answered without a session
            if answer.replayed:
                self._apply_unanswered(partition, session, answers[i:])
                session.reencode(answer.model)
                continue
            session.reencode(answer.model)
            self._apply(partition, session, answer.offset)
            if (answer.n, answer.digest) != (session.n, session.digest):
                report.violate(
                    f"clicks/{partition.number}/{answer.offset}: answered as click {answer.n} of "
                    f"its user with digest {answer.digest:08x}, a replay gives {session.n} and "
                    f"{session.digest:08x}"
                )
        return session

    def _apply_unanswered(
        self, partition: Partition, session: ReplayedSession, answers: list[Provenance]
    ) -> None:
        """Apply the clicks that were in the changelog before a crash took their first answers.

        The sessions were restored with all clicks that this generation then repeated.
        """
        first = answers[0]
        if first.offset <= session.last_offset:
            return
        session.reencode(session.version or first.model)
        for answer in answers:
            if not answer.replayed or answer.generation != first.generation:
                return
            if answer.offset > session.last_offset:
                self._apply(partition, session, answer.offset)

    def _apply(self, partition: Partition, session: ReplayedSession, offset: int) -> None:
        expected = partition.expected[offset]
        assert expected.event is not None
        idle_gap_ms = int(self._settings.idle_gap_minutes * 60_000)
        session.apply(offset, expected.event, expected.time_ms, idle_gap_ms)

    def _check_states(
        self,
        partitions: list[Partition],
        replayed: dict[int, dict[str, ReplayedSession]],
        report: Report,
    ) -> None:
        """Compare hidden states, for the versions whose bundles are still in the store."""
        pairs: dict[str, list[tuple[str, SessionRecord, ReplayedSession]]] = {}
        for partition in partitions:
            for user_id, record in partition.sessions.items():
                session = replayed[partition.number].get(user_id)
                reached = (record.last_offset, record.version)
                if session is not None and reached == (session.last_offset, session.version):
                    pairs.setdefault(record.version, []).append((user_id, record, session))
        for version, rows in pairs.items():
            bundle = self._load_version(version)
            if bundle is None:
                continue
            for user_id, record, session in rows:
                report.states += 1
                difference = np.abs(_state(bundle, session) - np.frombuffer(record.hidden, "<f4"))
                if difference.max() > _HIDDEN_TOLERANCE:
                    report.violate(
                        f"session of {user_id!r}: its state differs by {difference.max():.1e} "
                        f"from a replay under {version}"
                    )


def _check_ledger(partition: Partition, report: Report) -> None:
    answered = Counter(answer.offset for answer in partition.answers)
    dead = dict(partition.dead)
    copies = Counter(offset for offset, _ in partition.dead)
    for offset, expected in partition.expected.items():
        if offset >= partition.committed:
            report.pending += 1
            continue
        report.clicks += 1
        found = {"recommended": answered[offset], "dead": copies[offset]}
        if expected.outcome == "recommended":
            report.recommendations += 1
        elif expected.outcome == "dead":
            report.dead_letters += 1
        else:
            report.skipped[expected.reason] += 1
        place = f"clicks/{partition.number}/{offset}"
        _check_outcome(place, expected, found, dead.get(offset, ""), report)


def _check_outcome(
    place: str, expected: Expected, found: dict[str, int], dead_for: str, report: Report
) -> None:
    copies = found.pop(expected.outcome, 0)
    if any(found.values()):
        report.violate(f"{place}: must be {expected.outcome}, has another outcome")
    if expected.outcome == "skipped":
        return
    report.repeated += max(0, copies - 1)
    if not copies:
        report.violate(f"{place}: lost, it has no outcome")
    elif expected.outcome == "dead" and dead_for != expected.reason:
        report.violate(f"{place}: dead for {dead_for}, must be for {expected.reason}")


def _check_marker(partition: Partition, report: Report) -> None:
    marker = partition.marker
    place = f"marker of partition {partition.number}"
    if marker is None:
        if partition.committed:
            report.violate(f"{place}: missing, though {partition.committed} is committed")
        return
    if marker.next_offset < partition.committed:
        report.violate(f"{place}: {marker.next_offset} is below the commit {partition.committed}")
    due = [e for offset, e in partition.expected.items() if offset < marker.next_offset]
    counts = Counter(expected.outcome for expected in due)
    skipped = Counter(expected.reason for expected in due if expected.outcome == "skipped")
    stated = (marker.seen, marker.recommended, marker.dead, Counter(marker.skipped))
    if stated != (len(due), counts["recommended"], counts["dead"], skipped):
        report.violate(f"{place}: counts {stated}, a replay gives {len(due)}, {dict(counts)}")


def _check_sessions(
    partition: Partition, replayed: dict[str, ReplayedSession], report: Report
) -> None:
    for user_id, session in replayed.items():
        record = partition.sessions.get(user_id)
        if record is None:
            evicted_at = partition.evictions.get(user_id, ())
            if session.n and session.last_offset not in evicted_at:
                report.violate(f"session of {user_id!r}: not in the changelog")
            continue
        if record.last_offset >= max(partition.committed, session.last_offset + 1):
            continue  # its batch is not complete: the changelog is ahead of the answers
        report.sessions += 1
        stated = (record.last_offset, record.n, record.digest, record.length, record.items)
        want = (session.last_offset, session.n, session.digest, session.length, [*session.ring])
        if stated != want:
            report.violate(f"session of {user_id!r}: changelog has {stated}, a replay {want}")
    for user_id in partition.sessions.keys() - replayed.keys():
        if partition.sessions[user_id].last_offset < partition.committed:
            report.violate(f"session of {user_id!r}: in the changelog, but no click made it")


def _state(bundle: Bundle, session: ReplayedSession) -> np.ndarray[Any, np.dtype[Any]]:
    def rows(items: list[str]) -> list[int]:
        return [row for row in bundle.catalogue.rows(items).tolist() if row >= 0]

    vectors = torch.from_numpy(bundle.vectors_ND)
    with torch.inference_mode():
        base = rows(session.base)
        if base:
            state = bundle.encoder.encode(vectors[base][None], torch.tensor([len(base)]))
        else:
            state = bundle.encoder.init_state(1)
        for row in rows(session.steps):
            state = bundle.encoder.step(state, vectors[row][None])
    result: np.ndarray[Any, np.dtype[Any]] = state[0].numpy()
    return result
