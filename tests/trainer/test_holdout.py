"""The latest sessions of a log: each part is predicted before it is learnt."""

from dataclasses import replace

import numpy as np
import pytest

from index.click_memory import NO_CLICK
from stream.click_log import ClickLog
from trainer import holdout
from trainer.fusion_learner import FusionLearner
from trainer.history import in_log_order, read_history
from trainer.settings import FusionSettings

BATCH = 64


@pytest.fixture
def history(cyclic_clicks):
    clicks = cyclic_clicks(1_200)
    end = clicks[-1][3]
    for n in range(40):  # an item that is new near the end, after item-0
        clicks += [(f"late{n}", None, "item-0", end + 10 * n)]
        clicks += [(f"late{n}", None, "brand-new", end + 10 * n + 1)]
    users, _, items, times = (list(column) for column in zip(*clicks, strict=True))
    log = ClickLog(users, None, items, np.asarray(times, np.int64))
    return read_history(log, gap_ms=1_800_000, holdout_share=0.5, max_items=1_000)


@pytest.fixture
def fusion():
    return FusionLearner(FusionSettings(max_clicks=5_000, min_examples=20), temperature=12.0)


@pytest.fixture
def learner(make_learner, history):
    made = make_learner()
    for item_id in history.item_ids[: history.num_known_items]:
        made.admit(item_id, [])
    return made


def test_afterwards_every_item_is_admitted_and_every_click_remembered(history, learner, fusion):
    holdout.learn_holdout(history, learner, fusion, batch_targets=BATCH)

    assert learner.items.ids == history.item_ids
    assert fusion.memory.num_added == len(history.rows_F)
    assert fusion.weights is not None
    assert learner.progress.refused == 0


def test_the_ranker_sees_clicks_on_items_that_were_new_a_little_before(
    history, learner, fusion, monkeypatch
):
    new_row, seen = history.item_ids.index("brand-new"), []
    observe = fusion.observe

    def observed(windows, queries, vectors, rng):
        seen.append((new_row < len(vectors), (windows.target_rows == new_row).sum()))
        observe(windows, queries, vectors, rng)

    monkeypatch.setattr(fusion, "observe", observed)

    holdout.learn_holdout(history, learner, fusion, batch_targets=BATCH)

    assert new_row >= history.num_known_items
    assert any(known and clicks for known, clicks in seen)
    assert not seen[0][0]


def test_nothing_is_predicted_after_it_was_learnt(history, learner, fusion, monkeypatch):
    order = []
    learn = learner.learn

    def learnt(windows, **options):
        order.append(("learnt", int(windows.target_rows.sum()), windows.num_targets))
        return learn(windows, **options)

    def observed(windows, *_):
        order.append(("seen", int(windows.target_rows.sum()), windows.num_targets))

    monkeypatch.setattr(learner, "learn", learnt)
    monkeypatch.setattr(fusion, "observe", observed)

    holdout.learn_holdout(history, learner, fusion, batch_targets=10_000)

    assert [step for step, *_ in order] == ["seen", "learnt"] * (len(order) // 2)
    assert [rest for step, *rest in order if step == "seen"] == [
        rest for step, *rest in order if step == "learnt"
    ]


def test_clicks_are_linked_to_the_one_before_across_all_parts(history, learner, fusion):
    holdout.learn_holdout(history, learner, fusion, batch_targets=BATCH)

    whole = in_log_order(history, 0, len(history.start_S))
    columns = fusion.memory.columns()
    assert sorted(columns.rows_B.tolist()) == sorted(whole.rows_B.tolist())
    assert (columns.to_before_B > 0).sum() == (whole.before_B != NO_CLICK).sum()


def test_a_log_without_held_out_sessions_leaves_no_ranker(history, learner, fusion):
    everything_known = replace(history, holdout_from=len(history.start_S))

    holdout.learn_holdout(everything_known, learner, fusion, batch_targets=BATCH)

    assert fusion.weights is None
