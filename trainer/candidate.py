"""A candidate version, measured beside the one that serves; what is good enough the gate knows.

Shapes: N items.
"""

from dataclasses import dataclass

from trainer.comparison import Comparison
from trainer.evaluate import target_ranks, thin, times_shown
from trainer.gate import (
    FIRST,
    Facts,
    Verdict,
    all_finite,
    defective,
    judge_lists,
    judge_score,
    unfit,
)
from trainer.learner import queries
from trainer.settings import GateSettings
from trainer.stream_learner import Frozen, StreamLearner
from trainer.windows import Windows

_LEARNT_CLICKS = 500  # enough to see a version that is broken


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the learner knows at one moment, and the clicks to measure it on."""

    frozen: Frozen
    recent: Windows
    stream: StreamLearner
    trained_through: dict[int, int]
    created_ms: int


def judged(
    candidate: Candidate, serving: Frozen | None, settings: GateSettings, extensions: int
) -> Verdict:
    """Return the gate's verdict; what is dear is measured only when all else would do."""
    if (defect := _defect(candidate, settings)) is not None:
        return defective(defect)
    if serving is None:
        return FIRST
    compared = candidate.stream.comparison
    verdict = judge_score(compared, settings, extensions)
    if not verdict.accepted:
        return verdict
    refusal = judge_lists(
        _facts(candidate.frozen, candidate),
        _facts(serving, candidate),
        settings,
        compared=compared,
        learnt=_on_learnt_clicks(candidate, serving),
    )
    return refusal or verdict


def _defect(candidate: Candidate, settings: GateSettings) -> str | None:
    """Return what no bundle can hold."""
    frozen, ranker = candidate.frozen, candidate.stream.fusion.weights
    found = unfit(
        frozen.vectors_ND, dim=frozen.encoder.dim, max_norm_deviation=settings.max_norm_deviation
    )
    if found is None and not all_finite(frozen.encoder.state_dict().values()):
        return "not_finite"
    if found is None and ranker is not None and not all_finite(ranker):
        return "ranker"
    return found


def _facts(version: Frozen, candidate: Candidate) -> Facts:
    """Measure the lists that a version has for the latest clicks."""
    num_items, recent = len(version.vectors_ND), candidate.recent
    if not len(recent):
        return Facts(num_items, 0.0, 0.0)
    queries_MD = queries(version.encoder, version.vectors_ND, recent)
    shown_N = times_shown(queries_MD, version.vectors_ND)
    counts_N = candidate.stream.learner.items.counts_N.numpy()[:num_items]
    return Facts(
        num_items,
        coverage=float((shown_N > 0).mean()),
        popularity=float(shown_N @ counts_N / shown_N.sum()),
    )


def _on_learnt_clicks(candidate: Candidate, serving: Frozen) -> Comparison:
    """Compare on the latest clicks, which only the candidate has learnt."""
    compared, windows = Comparison(), thin(candidate.recent, _LEARNT_CLICKS)
    if len(windows):
        own_M, theirs_M = (
            target_ranks(
                queries(version.encoder, version.vectors_ND, windows),
                version.vectors_ND,
                windows.target_rows,
            )
            for version in (candidate.frozen, serving)
        )
        compared.add(own_M, theirs_M, windows.sizes)
    return compared
