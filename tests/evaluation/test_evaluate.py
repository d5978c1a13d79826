import itertools

import pytest

from evaluation.evaluate import Surroundings, Task, Work, evaluate
from evaluation.recorded import Cut
from trainer.settings import TrainerSettings

SETTINGS = TrainerSettings.model_validate({"publish_seconds": 300.0, "gate": {"min_clicks": 20}})


@pytest.fixture
def measure(make_recorded, ring_rows, tmp_path):
    """Evaluate a log in which every session walks otherwise from the split on."""

    def run(protocol="static", *, meta=None, **task):
        rows = ring_rows(2_000, turn=1_200)
        recorded = make_recorded(rows, Cut(share=0.4), **(meta or {}))
        shown, clock = [], itertools.count()
        folder = tmp_path / f"{protocol}{len(list(tmp_path.iterdir()))}"
        around = Surroundings(folder, lambda: next(clock), lambda advance: None, shown.append)
        found = evaluate(recorded, Task(protocol=protocol, **task), SETTINGS, around)
        return found, shown

    return run


def recall(found):
    return float((found.tally.ranks()[1] > 0).mean())


def test_a_frozen_version_keeps_predicting_the_old_walk_and_a_learning_one_finds_the_new(measure):
    frozen, shown = measure("static", k=3)
    learning, _ = measure("prequential", k=3)

    assert frozen.num_versions == 1
    assert learning.num_versions > 5
    assert len(frozen.tally) == len(learning.tally) == len(frozen.recorded.predictions())
    assert shown[-1] == len(frozen.tally)
    assert recall(learning) > recall(frozen) + 0.2
    assert frozen.learning == Work()
    assert learning.learning.clicks > 700


def test_late_learning_is_worth_less(measure):
    at_once, _ = measure("prequential", k=3)
    late, _ = measure("prequential", k=3, delay_ms=3_000_000)

    assert recall(late) < recall(at_once) - 0.1


def test_equal_seeds_give_equal_figures(measure):
    first, _ = measure("static", max_predictions=100, seed=4)
    second, _ = measure("static", max_predictions=100, seed=4)

    assert len(first.tally) == 100
    assert [part.tolist() for part in first.tally.ranks()] == [
        part.tolist() for part in second.tally.ranks()
    ]


def test_a_log_that_excludes_seen_items_gets_lists_without_them(measure):
    found, _ = measure("static", meta={"exclude_seen": True})
    free, _ = measure("static")

    assert found.recorded.exclude_seen
    assert (found.tally.exposure.shown_I != free.tally.exposure.shown_I).any()


def test_the_clicks_before_the_split_are_what_is_trained_on(measure):
    found, _ = measure("static")

    assert found.training.clicks == found.recorded.first_test
    assert found.training.per_second > 0
    assert found.clicks_learnt > found.training.clicks
