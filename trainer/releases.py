"""Judge a candidate, store it, announce it: the numbered way of one version out of the trainer."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from index.item_index import IndexPlan
from model.bundle import Bundle, prune, publish
from model.store import Store
from model.versions import refused_name
from stream.announcements import on_trial
from stream.messages import ModelAnnouncement
from trainer.candidate import Candidate, judged
from trainer.deltas import Deltas
from trainer.gate import Verdict
from trainer.publish import Origin, announcement, build_bundle
from trainer.settings import TrainerSettings
from trainer.start import comparable, read_version
from trainer.state import Position
from trainer.stream_learner import Frozen, StreamLearner

log = structlog.get_logger(__name__)

_KEPT_REFUSED = 5


@dataclass(frozen=True, slots=True)
class _Trial:
    """An accepted version that some users try, and what its deltas begin with once it serves."""

    announced: ModelAnnouncement
    frozen: Frozen
    num_clicks: int


def _nothing_announced(kind: str) -> None:
    """Nobody else announces."""


class Releases:
    """The one publisher of a model name; knows which version serves.

    `announce` sends an announcement and returns once it is stored; it raises when it is not.
    `latest` returns the newest announcement of a kind: a worker's guard or a person may have
    announced that an older version serves again, or that none is tried any more.
    """

    def __init__(
        self,
        store: Store,
        announce: Callable[[ModelAnnouncement], None],
        settings: TrainerSettings,
        latest: Callable[[str], ModelAnnouncement | None] = _nothing_announced,
    ) -> None:
        self._store = store
        self._announce = announce
        self._settings = settings
        self._latest = latest
        self.deltas = Deltas(store, announce, settings)
        self._frozen: Frozen | None = None
        self._index: IndexPlan | None = None
        self._trial: _Trial | None = None
        self.serving: str | None = None
        self.announced: ModelAnnouncement | None = None
        self.extensions = 0

    @property
    def trying(self) -> bool:
        """Whether some users try a version."""
        return self._trial is not None

    def serve(self, stream: StreamLearner, version: str | None, frozen: Frozen | None) -> None:
        """Note which version serves; without `frozen` it cannot be compared with."""
        self.serving, self._frozen = version, frozen
        self.extensions = 0
        stream.serve(frozen)

    def follow(
        self, stream: StreamLearner, found: ModelAnnouncement, bundle: Bundle | None
    ) -> None:
        """Note that what was announced serves; `bundle` is None where it is damaged.

        The stream learner compares with it once it rejoins.
        """
        self.announced = found
        self.deltas.forget()
        self.serving = None if bundle is None else bundle.manifest.version
        self._frozen = None if bundle is None else comparable(stream, bundle)
        self.extensions = 0

    def rejoin(self, stream: StreamLearner, position: Position) -> None:
        """Let a restored stream learner go on; scores against another version are dropped.

        Deltas go on where the checkpoint says, if that is the last word about what serves.
        """
        comparison = stream.comparison
        stream.serve(self._frozen)
        if position.serving == self.serving:
            stream.comparison, self.extensions = comparison, position.extensions
        self.deltas.resume(position.deltas, self.serving, self._frozen)

    def release(
        self, stream: StreamLearner, *, trained_through: dict[int, int], now_ms: int
    ) -> Verdict:
        """Bring out what the stream has learnt, in numbered steps.

        1. Ask what serves.  2. Fit the ranker, freeze and judge.  3. Store, a refused one under
        another name.  4. Announce.  5. Compare with it, make deltas of it from here on; where some
        users try it first, this waits for `end_trial`.  6. Remove old versions.
        """
        self._follow_others(stream)
        learner = stream.learner
        stream.fusion.refit(seed=int(learner.rng.integers(2**31)))
        candidate = Candidate(
            frozen=Frozen(learner.frozen_encoder(), learner.items.unit_vectors()),
            recent=stream.recent_windows(),
            stream=stream,
            trained_through=dict(trained_through),
            created_ms=now_ms,
        )
        verdict = judged(candidate, self._frozen, self._settings.gate, self.extensions)
        if verdict.verdict == "undecided":
            self.extensions += 1
        elif verdict.accepted:
            self._bring_out(candidate, verdict)
        else:
            self._refuse(candidate, verdict)
        return verdict

    def end_trial(self, stream: StreamLearner) -> Verdict:
        """Let the version that was tried serve everybody, unless a worker has withdrawn it.

        Raises RuntimeError where none is tried.
        """
        trial, self._trial = self._trial, None
        if trial is None:
            raise RuntimeError("no version is tried")
        if self._follow_others(stream):
            return Verdict("refused", "overtaken", "another version was announced meanwhile")
        found = self._latest("canary")
        if found is None or found.version != trial.announced.version or not found.share:
            reason = "" if found is None else found.gate.reason or ""
            log.error("version withdrawn", version=trial.announced.version, reason=reason)
            self.deltas.hold_rows()
            return Verdict("refused", "withdrawn", reason)
        self._announce(trial.announced)
        self._now_serves(trial, stream)
        return Verdict("accepted", "tried")

    def _follow_others(self, stream: StreamLearner) -> bool:
        """Compare with what another party has announced since; tells whether one has."""
        found = self._latest("bundle")
        known = None if self.announced is None else self.announced.version
        if found is None or found.version == known:
            return False
        log.warning(
            "another party announced a version",
            version=found.version,
            restores=found.restores,
            reason=found.gate.reason,
        )
        self.follow(stream, found, read_version(found, self._settings.max_model_bytes))
        stream.serve(self._frozen)
        return True

    def _bring_out(self, candidate: Candidate, verdict: Verdict) -> None:
        before, share = self.serving, self._settings.gate.canary_share
        published = self._store_as(self._settings.model, candidate, verdict)
        num_clicks = candidate.stream.fusion.memory.num_added
        trial = _Trial(published, candidate.frozen, num_clicks)
        if share and self._frozen is not None:
            self._announce(on_trial(published, share))
            self._trial = trial
            self.serve(candidate.stream, self.serving, self._frozen)
        else:
            self._announce(published)
            self._now_serves(trial, candidate.stream)
        # A rollback would lead to the version before, which may be older than those kept.
        protect = () if before is None else (before,)
        prune(self._store, self._settings.model, keep=self._settings.keep_bundles, protect=protect)
        log.info(
            "version published",
            version=published.version,
            items=len(candidate.frozen.vectors_ND),
            **published.metrics,
        )

    def _now_serves(self, trial: _Trial, stream: StreamLearner) -> None:
        version = trial.announced.version
        self.announced = trial.announced
        self.serve(stream, version, trial.frozen)
        self.deltas.begin(version, trial.frozen, trial.num_clicks)

    def _refuse(self, candidate: Candidate, verdict: Verdict) -> None:
        """Keep a refused version for people, unless its values fit no bundle; never announce it."""
        log.error("version refused", reason=verdict.reason, detail=verdict.detail)
        if not verdict.defect:
            name = refused_name(self._settings.model)
            self._store_as(name, candidate, verdict)
            prune(self._store, name, keep=_KEPT_REFUSED)
        self.deltas.hold_rows()
        # The next candidate is judged on other clicks.
        self.serve(candidate.stream, self.serving, self._frozen)

    def _store_as(self, name: str, candidate: Candidate, verdict: Verdict) -> ModelAnnouncement:
        origin = Origin(
            name=name,
            created_ms=candidate.created_ms,
            verdict=verdict,
            parent=self.serving,
            parent_index=self._index,
            after=self.serving if self.announced is None else self.announced.version,
            trained_through=candidate.trained_through,
            metrics=_metrics(candidate.stream),
        )
        bundle = build_bundle(
            candidate.stream.learner,
            candidate.frozen,
            candidate.recent,
            origin,
            fusion=candidate.stream.fusion,
            seed=self._settings.seed,
        )
        self._index = IndexPlan(bundle.centroids_CD, bundle.list_numbers_N)
        return announcement(publish(self._store, bundle))


def _metrics(stream: StreamLearner) -> dict[str, float]:
    compared = stream.comparison
    metrics = {
        "recall_at_20": compared.candidate.recall,
        "mrr_at_20": compared.candidate.mrr,
        "predictions": float(compared.candidate.num),
    }
    if compared.serving.num:
        metrics["serving_recall_at_20"] = compared.serving.recall
        metrics["serving_mrr_at_20"] = compared.serving.mrr
    return metrics
