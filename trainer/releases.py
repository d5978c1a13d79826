"""Judge a candidate, store it, announce it: the numbered way of one version out of the trainer."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from index.plan import IndexPlan
from model.bundle import prune, publish
from model.store import Store
from stream.messages import ModelAnnouncement
from trainer.evaluate import Score, coverage
from trainer.gate import Facts, Verdict, judge, unfit, waits_for_clicks
from trainer.learner import queries
from trainer.publish import Origin, announcement, build_bundle
from trainer.settings import TrainerSettings
from trainer.stream_learner import Frozen, StreamLearner
from trainer.windows import Windows, empty

log = structlog.get_logger(__name__)

_KEPT_REFUSED = 5


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What the learner knows at one moment, and the clicks to measure it on."""

    frozen: Frozen
    recent: Windows
    stream: StreamLearner
    trained_through: dict[int, int]
    created_ms: int


class Releases:
    """The one publisher of a model name; knows which version serves.

    `announce` sends an announcement and returns once it is stored; it raises when it is not.
    """

    def __init__(
        self,
        store: Store,
        announce: Callable[[ModelAnnouncement], None],
        settings: TrainerSettings,
    ) -> None:
        self._store = store
        self._announce = announce
        self._settings = settings
        self._frozen: Frozen | None = None
        self._index: IndexPlan | None = None
        self.serving: str | None = None
        self.announced: ModelAnnouncement | None = None
        self.extensions = 0

    def serve(self, stream: StreamLearner, version: str | None, frozen: Frozen | None) -> None:
        """Note which version serves; without `frozen` it cannot be compared with."""
        self.serving, self._frozen = version, frozen
        self.extensions = 0
        stream.serve(frozen)

    def rejoin(self, stream: StreamLearner) -> None:
        """Let another stream learner compare with the same version, its scores kept."""
        comparison = stream.comparison
        stream.serve(self._frozen)
        stream.comparison = comparison

    def release(
        self, stream: StreamLearner, *, trained_through: dict[int, int], now_ms: int
    ) -> Verdict:
        """Bring out what the stream has learnt, in numbered steps.

        1. Fit the ranker, freeze and judge.  2. Store, a refused one under another name.
        3. Announce.  4. Compare with it from here on.  5. Remove old versions.
        """
        learner = stream.learner
        stream.fusion.refit(seed=int(learner.rng.integers(2**31)))
        candidate = _Candidate(
            frozen=Frozen(learner.frozen_encoder(), learner.items.unit_vectors()),
            recent=stream.recent_windows(),
            stream=stream,
            trained_through=dict(trained_through),
            created_ms=now_ms,
        )
        verdict = self._judge(candidate)
        if verdict.verdict == "undecided":
            self.extensions += 1
        elif verdict.accepted:
            self._bring_out(candidate, verdict)
        else:
            self._refuse(candidate, verdict)
        return verdict

    def _bring_out(self, candidate: _Candidate, verdict: Verdict) -> None:
        published = self._store_as(self._settings.model, candidate, verdict)
        self._announce(published)
        self.announced = published
        self.serve(candidate.stream, published.version, candidate.frozen)
        prune(self._store, self._settings.model, keep=self._settings.keep_bundles)
        log.info(
            "version published",
            version=published.version,
            items=len(candidate.frozen.vectors_ND),
            **published.metrics,
        )

    def _refuse(self, candidate: _Candidate, verdict: Verdict) -> None:
        """Keep a refused version for people, unless its values fit no bundle; never announce it."""
        log.error("version refused", reason=verdict.reason, detail=verdict.detail)
        if not verdict.defect:
            name = f"{self._settings.model}.refused"
            self._store_as(name, candidate, verdict)
            prune(self._store, name, keep=_KEPT_REFUSED)
        # The next candidate is judged on other clicks.
        self.serve(candidate.stream, self.serving, self._frozen)

    def _store_as(self, name: str, candidate: _Candidate, verdict: Verdict) -> ModelAnnouncement:
        origin = Origin(
            name=name,
            created_ms=candidate.created_ms,
            verdict=verdict,
            parent=self.serving,
            parent_index=self._index,
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

    def _judge(self, candidate: _Candidate) -> Verdict:
        compared, settings = candidate.stream.comparison, self._settings.gate
        defect = unfit(
            candidate.frozen.vectors_ND,
            dim=candidate.frozen.encoder.dim,
            max_norm_deviation=settings.max_norm_deviation,
        )
        # While there are too few clicks nothing is decided by coverage, which is dear to measure.
        early = waits_for_clicks(compared.serving, settings, self.extensions)
        recent = empty() if early and self._frozen is not None else candidate.recent
        serving = None
        if self._frozen is not None:
            serving = _facts(self._frozen, compared.serving, recent)
        return judge(
            _facts(candidate.frozen, compared.candidate, recent),
            serving,
            settings,
            defect=defect,
            extensions=self.extensions,
        )


def _facts(version: Frozen, score: Score, recent: Windows) -> Facts:
    if not len(recent):
        return Facts(len(version.vectors_ND), score)
    queries_MD = queries(version.encoder, version.vectors_ND, recent)
    return Facts(len(version.vectors_ND), score, coverage(queries_MD, version.vectors_ND))


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
