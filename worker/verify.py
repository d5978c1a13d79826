"""Check the ledger and the sessions of a running or stopped system against a replay of its clicks.

It reads topics only: every click has exactly one outcome, and every session is what a clean
single-threaded replay of its clicks gives under the versions that the recommendations name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from model.bundle import Bundle
from stream.changelog import EXACTLY_ONCE, SessionRecord
from stream.positions import StartFrom
from worker.evidence import Answer, Evidence, Partition
from worker.outcomes import check_counts_of_users, check_marker, check_order, check_outcomes
from worker.replay import ReplayedSession
from worker.report import Report
from worker.settings import SessionSettings
from worker.standing import standing_answers

_HIDDEN_TOLERANCE = 1e-5


class Verifier:
    """Compare the topics of one application with each other.

    What was committed exactly once, and from where on, is taken from the markers; `exactly_once`
    requires it of every click.
    """

    def __init__(
        self,
        evidence: Evidence,
        settings: SessionSettings,
        load_version: Callable[[str], Bundle | None],
        *,
        exactly_once: bool = False,
        start_from: StartFrom = "earliest",
    ) -> None:
        self._evidence = evidence
        self._settings = settings
        self._load_version = load_version
        self._exactly_once = exactly_once
        self._earliest = start_from == "earliest"

    def verify(
        self,
        committed: dict[int, int | None],
        committed_now: Callable[[int], int | None] | None = None,
    ) -> Report:
        """Return the report; `committed` is the workers' group offset of every clicks partition.

        Of a running system it was asked before; `committed_now` asks again for a partition whose
        topics were read.
        """
        report = Report()
        versions: set[str] = set()
        for partition in self._evidence.partitions(committed):
            now = committed_now(partition.number) if committed_now else partition.committed
            self._check(partition, now or 0, report)
            versions.update(answer.model for answer in partition.answers)
        report.model_versions = sorted(versions)
        return report

    def _check(self, partition: Partition, committed_now: int, report: Report) -> None:
        check_outcomes(partition, report, committed_now)
        check_order(partition, report)
        check_counts_of_users(partition, report)
        check_marker(partition, report, committed_now, earliest=self._earliest)
        if self._exactly_once:
            _check_guarantee(partition, report)
        replayed = {
            user_id: self._replay_user(partition, user_id, answers, report)
            for user_id, answers in standing_answers(partition).items()
        }
        _check_sessions(partition, replayed, report)
        self._check_states(partition, replayed, report)

    def _replay_user(
        self, partition: Partition, user_id: str, answers: list[Answer], report: Report
    ) -> ReplayedSession:
        """Apply the answered clicks in output order; checks n and digest of every answer.

        A rebuild has applied all clicks before it once more.
        """
        rebuilt = partition.rebuilt
        evicted_at = partition.evictions.get(user_id, set())
        session = ReplayedSession()
        if rebuilt is not None:
            before = [answer for answer in answers if answer.offset < rebuilt.next_offset]
            answers = [answer for answer in answers if answer.offset >= rebuilt.next_offset]
            self._follow(partition, session, before, evicted_at, report)
            session = ReplayedSession(version=rebuilt.version)
            for offset in sorted({answer.offset for answer in before}):
                self._apply(partition, session, offset)
        return self._follow(partition, session, answers, evicted_at, report)

    def _follow(
        self,
        partition: Partition,
        session: ReplayedSession,
        answers: list[Answer],
        evicted_at: set[int],
        report: Report,
    ) -> ReplayedSession:
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
        self, partition: Partition, session: ReplayedSession, answers: list[Answer]
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
        partition: Partition,
        replayed: dict[str, ReplayedSession],
        report: Report,
    ) -> None:
        """Compare hidden states, for the versions whose bundles are still in the store."""
        pairs: dict[str, list[tuple[str, SessionRecord, ReplayedSession]]] = {}
        for user_id, record in partition.sessions.items():
            session = replayed.get(user_id)
            reached = (record.last_offset, record.version)
            if session is not None and reached == (session.last_offset, session.version):
                pairs.setdefault(record.version, []).append((user_id, record, session))
        for version, rows in sorted(pairs.items()):  # a bundle's deltas follow it
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


def _check_guarantee(partition: Partition, report: Report) -> None:
    marker = partition.marker
    if marker is not None and (
        marker.guarantee != EXACTLY_ONCE or marker.exact_from > marker.start
    ):
        report.violate(
            f"marker of partition {partition.number}: {marker.guarantee} from {marker.exact_from} "
            f"on, must be exactly_once from {marker.start} on"
        )


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
