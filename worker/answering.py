"""One batch from records to sends: intake, recommender, outputs, under one model version.

It owns the sessions and the version reference; it knows records but no consumer and no producer.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog

from index.item_index import IndexFullError
from stream.batch import Send
from stream.changelog import Entry
from stream.kafka_types import ConsumerRecord
from worker.canary import Canary
from worker.canary import Verdict as CanaryVerdict
from worker.guard import Alarm, Guard
from worker.hits import NextClickMeter
from worker.intake import Intake, Seated, judge_records, outcomes, seat
from worker.ledger import Ledger
from worker.metrics import StageClock, WorkerMetrics
from worker.newcomers import Newcomers
from worker.outputs import Writer
from worker.recommender import Answers, recommend
from worker.restore import place_session
from worker.sessions import EMPTY, Sessions
from worker.settings import WorkerSettings
from worker.version import ServingVersion

Array = np.ndarray[Any, np.dtype[Any]]
_RECALL_QUERIES = 16

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """An answered batch, not yet committed: its sends, and what to keep or to roll back."""

    sends: list[Send]
    ledgers: dict[int, Ledger]
    intake: Intake
    seated: Seated
    answers: Answers
    first_outcomes: Counter[tuple[str, str]]


class Answering:
    """Answer batches under the current version; `keep` or `roll_back` each before the next."""

    def __init__(
        self,
        settings: WorkerSettings,
        writer: Writer,
        metrics: WorkerMetrics,
        *,
        num_partitions: int,
        rng: np.random.Generator,
    ) -> None:
        self._settings = settings
        self._writer = writer
        self._metrics = metrics
        self._num_partitions = num_partitions
        self._rng = rng
        self._version: ServingVersion | None = None
        self._newcomers = Newcomers(0)
        self._meter = NextClickMeter(settings.ranking.k)
        self._guard = Guard(settings.guard)
        self._maker = 0
        self._offered: ServingVersion | None = None
        self._canary: Canary | None = None
        self._num_trials = 0
        self.clock = StageClock(metrics)
        self.sessions = Sessions(0, max_live=settings.sessions.max_live)

    @property
    def version(self) -> ServingVersion:
        """The serving version; there is one before the first batch."""
        assert self._version is not None, "the worker waits for a model before it polls"
        return self._version

    def swap(self, version: ServingVersion | None) -> None:
        """Serve `version` from the next batch on; None changes nothing.

        Rings are renamed to the new catalogue's rows; states are re-encoded lazily.
        """
        if version is None:
            return
        started = time.perf_counter()
        version.enter(self._version)
        old, self._version = self._version, version
        state_dim = version.bundle.encoder.state_dim
        if state_dim != self.sessions.hidden_SH.shape[1]:
            self.sessions.resize_state(state_dim)
        if old is not None:
            self._rename(old, version)
        self._take_over_newcomers(old, version)
        if version.announcement is not None:
            self._maker = self._guard.serve(version.announcement, time.monotonic())
        pause = time.perf_counter() - started
        self._metrics.swapped(version, pause)
        log.info("serving", version=version.name, items=len(version.bundle.catalogue), pause=pause)

    def try_out(self, version: ServingVersion | None) -> None:
        """Give a share of the users the lists of `version` from the next batch on; None ends it."""
        if version is not self._offered:
            self._offered = version
            self._canary = self._trial(version) if version is not None else None

    def place(self, entry: Entry) -> None:
        """Put a changelog entry into the sessions."""
        place_session(self.sessions, entry, self.version, self._newcomers)
        self._meter.forget_slot(self.sessions.find(entry.partition, entry.user_id))

    def answer(
        self, records: list[ConsumerRecord], ledgers: dict[int, Ledger], generation: int
    ) -> Batch:
        """Answer `records` under one version and return what to send; sessions are changed."""
        version, clock, settings = self.version, self.clock, self._settings
        ledgers = {p: ledgers[p].copy() for p in {r.partition for r in records}}
        intake = judge_records(
            *(records, ledgers, self.sessions),
            num_partitions=self._num_partitions,
            ttl_ms=int(settings.sessions.ttl_days * 86_400_000),
        )
        clock.lap("decode")
        seated = seat(
            intake, self.sessions, ledgers, self._newcomers.code_of(version.bundle.catalogue)
        )
        clock.lap("sessions")
        answers = recommend(
            *(seated.clicks, self.sessions, version),
            ranking=settings.ranking,
            idle_gap_ms=int(settings.sessions.idle_gap_minutes * 60_000),
            lap=clock.lap,
        )
        answers = self._tried(answers, seated)
        first_outcomes = _enter(ledgers, intake, seated, answers.lists.popular_from_B)
        sends = list(self._sends(intake, seated, answers, ledgers, generation))
        clock.lap("serialise")
        return Batch(sends, ledgers, intake, seated, answers, first_outcomes)

    def keep(self, batch: Batch, records: list[ConsumerRecord], now_seconds: float) -> None:
        """Take note that the batch is committed."""
        self._release(batch.seated)
        self._learn_newcomers(batch)
        self._newcomers.trim(self.sessions.codes_in_use)
        self._measure(batch, records, now_seconds)

    def alarm(self) -> Alarm | None:
        """Return what the guard finds wrong with the serving version, when a look is due."""
        return self._guard.alarm(time.monotonic())

    def canary_verdict(self) -> CanaryVerdict | None:
        """Return what speaks against the version on trial, when a look is due."""
        return self._canary.verdict() if self._canary is not None else None

    def roll_back(self, batch: Batch) -> None:
        """Put the sessions back as they were before the batch."""
        self.sessions.roll_back(batch.seated.undo)
        self._release(batch.seated)

    def _tried(self, answers: Answers, seated: Seated) -> Answers:
        """Replace the lists of users who get those of the version on trial."""
        if (canary := self._canary) is None:
            return answers
        chosen_B = np.array([canary.picks(judged.event.user_id) for judged in seated.judged], bool)
        answers = canary.answer(answers, seated.clicks.code_B, chosen_B, self._settings.ranking)
        self.clock.lap("rank")  # a second time: what a trial takes is added
        return answers

    def _sends(
        self,
        intake: Intake,
        seated: Seated,
        answers: Answers,
        ledgers: dict[int, Ledger],
        generation: int,
    ) -> Iterator[Send]:
        version, catalogue = self.version, self.version.bundle.catalogue
        if answers.tried is not None:
            # One catalogue begins with the other: the longer one names the rows of both.
            catalogue = max(catalogue, answers.tried.version.bundle.catalogue, key=len)
        name = self._newcomers.item_name(catalogue)
        yield from self._writer.recommendations(
            *(seated, answers, version),
            generation=generation,
            now_ms=time.time_ns() // 1_000_000,
            item_name=name,
        )
        yield from self._writer.dead_letters(intake.dead)
        yield from self._writer.changelog(
            *(seated, self.sessions, version, ledgers), generation=generation, item_name=name
        )

    def _trial(self, version: ServingVersion) -> Canary | None:
        own, others = version.bundle.catalogue, self.version.bundle.catalogue
        if not (own.extends(others) or others.extends(own)):
            self._metrics.model_loads.labels("refused", "rows").inc()
            log.error("not tried: its rows mean other items", version=version.name)
            return None
        version.enter()
        self._num_trials += 1
        log.info("trying", version=version.name)
        return Canary(version, self._settings.guard, maker=-self._num_trials)

    def _rename(self, old: ServingVersion, new: ServingVersion) -> None:
        """Rename rings to the rows of another catalogue; a plain extension changes no row."""
        before, after = old.bundle.catalogue, new.bundle.catalogue
        if not after.extends(before):
            rows_N = after.rows(before.ids)
            for row in np.flatnonzero(rows_N < 0).tolist():
                rows_N[row] = self._newcomers.code(before.ids[row])
            self.sessions.translate(rows_N)
            self._meter.forget()
            self.try_out(None)
        self.sessions.rename(self._newcomers.admit(after.row))

    def _take_over_newcomers(self, old: ServingVersion | None, new: ServingVersion) -> None:
        """Go on recommending newcomers that a delta does not name: its encoder is the bundle's."""
        if old is None or old.encoder_version != new.encoder_version:
            self._newcomers.renew(new.bundle.vectors_ND.shape[1], self.sessions.codes_in_use)
        for code, vector_D in self._newcomers.vectors().items():
            self._make_searchable(code, vector_D)

    def _make_searchable(self, code: int, vector_D: Array) -> None:
        try:
            self.version.index.add(code, vector_D)
        except IndexFullError:
            self._newcomers.unlearn(code)
            self._metrics.fallbacks.labels("side_buffer_full").inc()

    def _release(self, seated: Seated) -> None:
        for slot in seated.scratch:
            self.sessions.release(slot)

    def _learn_newcomers(self, batch: Batch) -> None:
        clicks, after, lists = batch.seated.clicks, batch.answers.sessions, batch.answers.lists
        middle = self._settings.ranking.k // 2
        new_B = (clicks.code_B < EMPTY) & ~clicks.repeat_B
        self._metrics.unknown_items.inc(int(new_B.sum()))
        for b in np.flatnonzero(new_B & (lists.popular_from_B > middle)).tolist():
            code = int(clicks.code_B[b])
            vector_D = self._newcomers.learn(
                code, after.queries_BD[b], float(lists.scores_BK[b, middle])
            )
            self._make_searchable(code, vector_D)

    def _measure(self, batch: Batch, records: list[ConsumerRecord], now_seconds: float) -> None:
        metrics, seated, answers = self._metrics, batch.seated, batch.answers
        clicks, after, lists = seated.clicks, answers.sessions, answers.lists
        metrics.batch.observe(len(records))
        metrics.count(batch.first_outcomes, num_records=len(records))
        metrics.fallbacks.labels("cold").inc(int((lists.popular_from_B == 0).sum()))
        metrics.reencoded.inc(after.num_reencoded)
        metrics.evicted.labels("full").inc(len(seated.evicted))
        metrics.sessions.set(len(self.sessions))
        stamps_B = np.fromiter((j.record.timestamp for j in seated.judged), np.float64)
        metrics.latency.observe_many(np.maximum(now_seconds - stamps_B / 1000, 0.0))
        # A second item in the ring: this click went on with a session that had a list.
        continued_B = (after.rings_BR[:, 1] != EMPTY) & ~clicks.repeat_B
        maker_B = np.full(len(clicks), self._maker)
        if answers.tried is not None:
            maker_B[answers.tried.chosen_B] = answers.tried.maker
        measured = self._meter.measure(
            *(clicks.slot_B, clicks.code_B, continued_B, lists.codes_BK.astype(np.int32)), maker_B
        )
        self._guard.count(measured)
        if self._canary is not None:
            self._canary.count(measured)
        for one in measured:
            arm = "canary" if one.maker < 0 else "serving"
            metrics.evaluated.labels(arm).inc(one.evaluated)
            metrics.hits.labels(arm).inc(one.hits)
        self._sample_recall(after.queries_BD[after.personal_B])

    def _sample_recall(self, queries_BD: Array) -> None:
        if len(queries_BD) and self._rng.random() < self._settings.recall_sample:
            sample_BD = queries_BD[:_RECALL_QUERIES]
            recall = self.version.index.measure_recall(sample_BD, self._settings.ranking.k)
            self._metrics.index_recall.set(recall)
        self._metrics.index_items.labels("side").set(self.version.index.num_side)


def _enter(
    ledgers: dict[int, Ledger], intake: Intake, seated: Seated, popular_from_B: Array
) -> Counter[tuple[str, str]]:
    """Enter every outcome into the ledgers in log order; returns those that are the first ones."""
    sources = ["model" if place else "popular" for place in popular_from_B.tolist()]
    first: Counter[tuple[str, str]] = Counter()
    for record, kind, reason in outcomes(intake, seated, sources):
        if ledgers[record.partition].enter(record.offset, kind, reason):
            first[kind, reason] += 1
    return first
