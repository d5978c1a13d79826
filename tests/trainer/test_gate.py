import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from trainer.comparison import Comparison
from trainer.gate import (
    Facts,
    all_finite,
    judge_lists,
    judge_score,
    unfit,
)
from trainer.settings import GateSettings


def facts(*, items: int = 100, coverage: float = 0.5, popularity: float = 10.0) -> Facts:
    return Facts(items, coverage, popularity)


def ranks(rng, serving, *, change):
    """Ranks of a version that differs from the serving one by a small update.

    Of a tenth of the clicks the rank is drawn anew; then so many hits are lost or won that the MRR
    changes by `change`.
    """
    own = np.where(rng.random(len(serving)) < 0.1, rng.permutation(serving), serving)
    if change < 0:
        return np.where(rng.random(len(own)) < -change, 100, own)
    return own


def clicks(rng, num):
    """Ranks under the serving version, of which 30 % are hits, in windows of one to four clicks."""
    sizes = rng.integers(1, 5, size=num)
    sizes = sizes[np.cumsum(sizes) <= num]
    hit = rng.random(sizes.sum()) < 0.3
    return sizes, np.where(hit, np.minimum(rng.geometric(0.2, size=len(hit)), 20), 100)


def compared(*, change: float, num: int = 20_000, seed: int = 0) -> Comparison:
    rng, made = np.random.default_rng(seed), Comparison()
    sizes, serving = clicks(rng, num)
    made.add(ranks(rng, serving, change=change), serving, sizes)
    return made


def final_verdict(rng, *, change, clicks_per_cadence):
    """Judge cadence by cadence, as the trainer does, until it is decided."""
    settings, made = GateSettings(), Comparison()
    for extensions in range(settings.max_extensions + 1):
        sizes, serving = clicks(rng, clicks_per_cadence)
        made.add(ranks(rng, serving, change=change), serving, sizes)
        verdict = judge_score(made, settings, extensions)
        if verdict.verdict != "undecided":
            return verdict
    raise AssertionError("the last cadence decides")


@pytest.mark.parametrize("clicks_per_cadence", [60, 600, 4_000, 40_000])
def test_of_forty_equal_versions_at_most_two_are_refused(clicks_per_cadence):
    rng = np.random.default_rng(3)

    verdicts = [
        final_verdict(rng, change=0, clicks_per_cadence=clicks_per_cadence) for _ in range(40)
    ]

    assert sum(not verdict.accepted for verdict in verdicts) <= 2


@pytest.mark.parametrize(("clicks_per_cadence", "at_most"), [(600, 4), (4_000, 1), (40_000, 0)])
def test_a_version_that_is_six_percent_worse_is_nearly_always_refused(clicks_per_cadence, at_most):
    rng = np.random.default_rng(12)

    verdicts = [
        final_verdict(rng, change=-0.06, clicks_per_cadence=clicks_per_cadence) for _ in range(40)
    ]

    assert sum(verdict.accepted for verdict in verdicts) <= at_most


def test_a_clear_change_is_decided_at_the_first_look():
    settings = GateSettings()

    worse = judge_score(compared(change=-0.2), settings, 0)
    equal = judge_score(compared(change=0, num=100_000), settings, 0)

    assert (worse.verdict, worse.reason) == ("refused", "mrr")
    assert worse.detail.startswith("MRR -19.5% of the serving version's, -21.0% to -18.1%")
    assert (equal.verdict, equal.reason) == ("accepted", "not_worse")


@pytest.mark.parametrize(
    ("change", "error", "verdict", "reason"),
    [
        (0.0, 0.02, "accepted", "not_surely_worse"),
        (-0.05, 0.04, "accepted", "not_surely_worse"),
        (-0.05, 0.02, "refused", "likely_worse"),
    ],
)
def test_what_stays_unclear_is_refused_only_if_surely_worse(
    make_comparison, change, error, verdict, reason
):
    settings = GateSettings(max_extensions=4)
    unclear = make_comparison(change, error=error)

    waiting, last = (judge_score(unclear, settings, extensions) for extensions in (3, 4))

    assert (waiting.verdict, waiting.reason) == ("undecided", "mrr_unclear")
    assert (last.verdict, last.reason) == (verdict, reason)


def test_too_few_clicks_extend_a_bounded_number_of_times():
    settings = GateSettings(min_clicks=2000, max_extensions=3)
    few = compared(change=-0.5, num=1000)

    verdicts = [judge_score(few, settings, extensions) for extensions in range(5)]

    assert {verdict.reason for verdict in verdicts} == {"few_clicks"}
    assert [verdict.verdict for verdict in verdicts] == ["undecided"] * 3 + ["accepted"] * 2


def judged(candidate, *, compared=None, learnt=None):
    clicks = {"compared": compared or Comparison(), "learnt": learnt or Comparison()}
    return judge_lists(candidate, facts(), GateSettings(), **clicks)


def test_equal_lists_are_no_reason_to_refuse(make_comparison):
    assert judged(facts(), compared=make_comparison(0.0), learnt=make_comparison(0.0)) is None


@pytest.mark.parametrize(
    ("candidate", "change", "reason"),
    [
        (facts(items=99), 0.0, "rows"),
        (facts(coverage=0.39), 0.0, "coverage"),
        (facts(popularity=12.6), 0.0, "popularity"),
        (facts(), -0.2, "learnt_clicks"),
    ],
)
def test_lists_that_got_worse_are_refused_with_their_reason(
    make_comparison, candidate, change, reason
):
    verdict = judged(candidate, learnt=make_comparison(change))

    assert (verdict.verdict, verdict.reason) == ("refused", reason)


@pytest.mark.parametrize(
    ("change", "on_learnt_clicks", "accepted"),
    [(0.04, 0.2, True), (0.03, 0.2, False), (0.04, 0.0, False)],
)
def test_only_a_surely_better_version_may_show_more_popular_items(
    make_comparison, change, on_learnt_clicks, accepted
):
    compared = make_comparison(change, error=0.02)
    learnt = make_comparison(on_learnt_clicks, error=0.02)

    verdict = judged(facts(popularity=30.0), compared=compared, learnt=learnt)

    assert (verdict is None) is accepted


def test_a_single_bad_weight_is_found():
    good = [torch.ones(3), np.ones((2, 2), np.float32)]

    assert all_finite(good)
    assert not all_finite([*good, np.array([1.0, np.inf])])
    assert not all_finite([torch.tensor(float("nan")), *good])


@pytest.mark.parametrize(
    ("vectors_ND", "defect"),
    [
        (torch.zeros(0, 4), "shape"),
        (torch.ones(3, 5), "shape"),
        (torch.full((3, 4), float("nan")), "not_finite"),
        (torch.zeros(3, 4), "zero_row"),
        (torch.ones(3, 4), "norm"),
        (normalize(torch.ones(3, 4), dim=1), None),
    ],
)
def test_unfit_vectors_are_named(vectors_ND, defect):
    assert unfit(vectors_ND, dim=4, max_norm_deviation=1e-3) == defect
