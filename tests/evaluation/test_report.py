import itertools
import json

import pytest

from evaluation.evaluate import Surroundings, Task, evaluate
from evaluation.plots import draw
from evaluation.recorded import Cut
from evaluation.report import report
from trainer.settings import TrainerSettings


@pytest.fixture
def found(make_recorded, ring_rows, tmp_path):
    rows = [*ring_rows(1_500), ("late", "i0", 151), ("late", "never-seen", 152)]
    recorded = make_recorded(rows, Cut(share=0.3))
    clock = itertools.count()
    around = Surroundings(
        tmp_path / "work", lambda: next(clock), lambda advance: None, lambda done: None
    )
    return evaluate(recorded, Task(protocol="static", k=5), TrainerSettings(), around)


def test_a_report_has_every_figure_and_is_json(found):
    figures = json.loads(json.dumps(report(found)))

    assert figures.keys() >= {
        *("protocol", "predictions", "recall@5", "mrr@5", "ndcg@5", "precision@5", "coverage@5"),
        *("gini", "intra_list_distance", "novelty", "recall_warm@5", "cold_targets", "short_lists"),
        *("intervals", "channels", "slices", "over_time", "versions", "settings", "log"),
        *("train_clicks_per_second", "predictions_per_second"),
    }
    assert figures["channels"]["rnn"].keys() >= {"recall@5", "mrr@5"}
    assert figures["log"]["clicks"] == 1_502
    assert figures["settings"]["k"] == 5


def test_figures_fit_together(found):
    figures = report(found)
    ranks = found.tally.ranks()[1]

    assert figures["predictions"] == len(ranks)
    assert figures["recall@5"] == pytest.approx((ranks > 0).mean(), abs=1e-7)
    assert figures["precision@5"] == pytest.approx(figures["recall@5"] / 5, abs=1e-7)
    assert figures["mrr@5"] <= figures["ndcg@5"] <= figures["recall@5"]
    low, high = figures["intervals"]["recall@5"]
    assert low < figures["recall@5"] < high
    assert figures["cold_targets"] == pytest.approx(1 / len(ranks), abs=1e-7)
    warm = figures["recall_warm@5"] * (len(ranks) - 1)
    assert warm == pytest.approx((ranks > 0).sum(), abs=1e-4)
    # One channel and no exclusions: the lists are that channel's.
    assert figures["channels"]["rnn"]["recall@5"] == figures["recall@5"]


def test_time_is_cut_into_stretches_with_equally_many_predictions(found):
    parts = report(found)["over_time"]

    sizes = [part["predictions"] for part in parts]
    assert sum(sizes) == len(found.tally)
    assert max(sizes) - min(sizes) <= 1
    assert all(part["from_ms"] <= part["to_ms"] for part in parts)


def test_plots_are_written_as_png_and_svg(found, tmp_path):
    files = draw(report(found), tmp_path)

    assert sorted(file.name for file in files) == [
        "recall_by_slice.png",
        "recall_by_slice.svg",
        "recall_over_time.png",
        "recall_over_time.svg",
    ]
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert ">recall@5<" in (tmp_path / "recall_over_time.svg").read_text()
