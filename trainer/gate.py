"""May this candidate replace the version that serves? A pure judgement of measured facts."""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from trainer.evaluate import Score
from trainer.settings import GateSettings

_LEAST_NORM = 1e-6


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured of a version; `score` counts the clicks that both versions predicted."""

    num_items: int
    score: Score = field(default_factory=Score)
    coverage: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement and its reason; `reason` is a metric label and comes from a fixed set."""

    verdict: Literal["accepted", "refused", "undecided"]
    reason: str
    detail: str = ""
    defect: bool = False  # the values fit no bundle

    @property
    def accepted(self) -> bool:
        """Whether the candidate may be announced."""
        return self.verdict == "accepted"


def unfit(vectors_ND: Tensor, *, dim: int, max_norm_deviation: float) -> str | None:
    """Return what is wrong with item vectors that should be finite and of length one."""
    if vectors_ND.dim() != 2 or vectors_ND.shape[1] != dim or not len(vectors_ND):  # noqa: PLR2004
        return "shape"
    if not bool(vectors_ND.isfinite().all()):
        return "not_finite"
    norms_N = vectors_ND.norm(dim=1)
    if float(norms_N.min()) < _LEAST_NORM:
        return "zero_row"
    if float((norms_N - 1).abs().max()) > max_norm_deviation:
        return "norm"
    return None


def waits_for_clicks(serving: Score, settings: GateSettings, extensions: int) -> bool:
    """Whether the serving version has scored too few clicks to decide by, and may wait for more."""
    return serving.num < settings.min_clicks and extensions < settings.max_extensions


def judge(
    candidate: Facts,
    serving: Facts | None,
    settings: GateSettings,
    *,
    defect: str | None = None,
    extensions: int = 0,
) -> Verdict:
    """Compare a candidate with the serving version, None where nothing serves yet.

    `defect` is what `unfit` found. With fewer clicks than the gate wants the verdict is
    `undecided`, and the caller asks again later; after `max_extensions` of those the candidate
    is judged on everything but its score.
    """
    if defect is not None:
        return Verdict("refused", defect, defect=True)
    if serving is None:
        return Verdict("accepted", "first")
    if candidate.num_items < serving.num_items:
        return _refused("rows", candidate.num_items, serving.num_items)
    if candidate.coverage < settings.min_coverage_ratio * serving.coverage:
        return _refused("coverage", candidate.coverage, serving.coverage)
    return _judge_score(candidate.score, serving.score, settings, extensions)


def _judge_score(
    candidate: Score, serving: Score, settings: GateSettings, extensions: int
) -> Verdict:
    if serving.num < settings.min_clicks:
        waits = waits_for_clicks(serving, settings, extensions)
        verdict: Literal["accepted", "undecided"] = "undecided" if waits else "accepted"
        return Verdict(verdict, "few_clicks", f"{serving.num} clicks")
    if candidate.mrr < settings.min_mrr_ratio * serving.mrr:
        return _refused("mrr", candidate.mrr, serving.mrr)
    return Verdict("accepted", "not_worse")


def _refused(reason: str, candidate: float, serving: float) -> Verdict:
    return Verdict("refused", reason, f"{candidate:.5g} against {serving:.5g} of the serving one")
