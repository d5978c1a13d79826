"""May this candidate replace the version that serves? A pure judgement of measured facts.

Clicks are compared by the item vectors alone, without the ranker: it is fitted to whatever vectors
it is shipped with, on clicks that they had not learnt. Shapes: N items, D dimensions.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal

import numpy as np
from torch import Tensor

from trainer.comparison import Change, Comparison
from trainer.settings import GateSettings

_LEAST_NORM = 1e-6


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured of a version on the latest clicks.

    `coverage` is the share of its catalogue that its lists show, `popularity` the mean number of
    clicks that the items in its lists had.
    """

    num_items: int
    coverage: float
    popularity: float


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


FIRST: Final = Verdict("accepted", "first")


def defective(defect: str) -> Verdict:
    """Refuse values that fit no bundle."""
    return Verdict("refused", defect, defect=True)


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


def all_finite(weights: Iterable[Tensor | np.ndarray]) -> bool:
    """Tell whether no weight is NaN or infinite."""
    return all(bool(np.isfinite(np.asarray(weight)).all()) for weight in weights)


def judge_score(compared: Comparison, settings: GateSettings, extensions: int) -> Verdict:
    """Compare both versions' scores on clicks that neither had learnt.

    The verdict is `undecided` while the clicks are few, or while the margin is within the bounds of
    the change; the caller asks again later. After `max_extensions` of those a candidate is accepted
    unless it is surely worse than the serving version, and likely by more than the margin: a shop
    of few clicks, whose model never changed again, would lose more than what was not noticed.
    """
    clicks, last = compared.serving.num, extensions >= settings.max_extensions
    if clicks < settings.min_clicks:
        return Verdict("accepted" if last else "undecided", "few_clicks", f"{clicks} clicks")
    change = compared.change()
    low, high = bounds(change, settings)
    detail = (
        f"MRR {change.mean:+.1%} of the serving version's, {low:+.1%} to {high:+.1%}, on {clicks} "
        "clicks"
    )
    if low > -settings.margin:
        return Verdict("accepted", "not_worse", detail)
    if high < -settings.margin:
        return Verdict("refused", "mrr", detail)
    if not last:
        return Verdict("undecided", "mrr_unclear", detail)
    if change.mean > -settings.margin or high > 0:
        return Verdict("accepted", "not_surely_worse", detail)
    return Verdict("refused", "likely_worse", detail)


def judge_lists(
    candidate: Facts,
    serving: Facts,
    settings: GateSettings,
    *,
    compared: Comparison,
    learnt: Comparison,
) -> Verdict | None:
    """Return why a candidate is refused whose score would do, None where there is no reason.

    `learnt` compares on clicks that only the candidate has learnt: to be worse even there, it must
    have broken after its score was taken. More popular items are no fault of a candidate that is
    surely better on all of these clicks: the old version may not know what is popular now.
    """
    if candidate.num_items < serving.num_items:
        return _refused("rows", candidate.num_items, serving.num_items)
    better = all(bounds(clicks.change(), settings)[0] > 0 for clicks in (compared, learnt))
    if candidate.popularity > settings.max_popularity_ratio * serving.popularity and not better:
        return _refused("popularity", candidate.popularity, serving.popularity)
    if candidate.coverage < settings.min_coverage_ratio * serving.coverage:
        return _refused("coverage", candidate.coverage, serving.coverage)
    if bounds(learnt.change(), settings)[1] < -settings.margin:
        return _refused("learnt_clicks", learnt.candidate.mrr, learnt.serving.mrr)
    return None


def bounds(change: Change, settings: GateSettings) -> tuple[float, float]:
    """Return the one-sided lower and upper bound of a change in MRR, each at the confidence set."""
    width = NormalDist().inv_cdf(settings.confidence) * change.error
    return change.mean - width, change.mean + width


def _refused(reason: str, candidate: float, serving: float) -> Verdict:
    return Verdict("refused", reason, f"{candidate:.5g} against {serving:.5g} of the serving one")
