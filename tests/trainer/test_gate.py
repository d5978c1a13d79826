import pytest
import torch
from torch.nn.functional import normalize

from trainer.evaluate import Score
from trainer.gate import Facts, judge, unfit
from trainer.settings import GateSettings


def facts(*, items: int = 100, num: int = 1000, mrr: float = 0.3, coverage: float = 0.5) -> Facts:
    return Facts(items, Score(num, num, mrr * num), coverage)


def test_an_equal_candidate_is_accepted():
    assert judge(facts(), facts(), GateSettings()).accepted


def test_the_first_model_is_accepted_when_its_vectors_are_fit():
    assert judge(facts(), None, GateSettings()).accepted
    assert judge(facts(), None, GateSettings(), defect="zero_row").verdict == "refused"


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (facts(mrr=0.29), "mrr"),
        (facts(items=99), "rows"),
        (facts(coverage=0.39), "coverage"),
    ],
)
def test_a_worse_candidate_is_refused_with_its_reason(candidate, reason):
    verdict = judge(candidate, facts(), GateSettings())

    assert (verdict.verdict, verdict.reason) == ("refused", reason)


def test_a_candidate_within_the_margin_is_accepted():
    assert judge(facts(mrr=0.292), facts(), GateSettings()).accepted


def test_too_few_clicks_extend_a_bounded_number_of_times():
    settings = GateSettings(min_clicks=2000, max_extensions=3)

    verdicts = [judge(facts(), facts(), settings, extensions=n).verdict for n in range(5)]

    assert verdicts == ["undecided"] * 3 + ["accepted"] * 2


def test_too_few_clicks_do_not_let_a_shrunken_catalogue_through():
    verdict = judge(
        facts(items=1, num=0), facts(num=0), GateSettings(max_extensions=0), extensions=9
    )

    assert verdict.reason == "rows"


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
