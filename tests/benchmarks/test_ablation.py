"""One training, every choice of channels: the rows, and that each is fitted on what it may see."""

import argparse
from itertools import combinations

import numpy as np
import pytest
import torch

from benchmarks.ablation import Witness, choices, measure, table
from cli.settings import Settings
from index.candidates import FEATURES
from model.manifest import CHANNELS
from trainer.settings import FusionSettings
from trainer.windows import from_lists


@pytest.fixture
def log(tmp_path):
    """Write sessions that walk round a ring of thirty items."""
    lines = ["session_id,item_id,timestamp"]
    for number in range(4_000):
        session, step = number % 10 + number // 120 * 100, number % 120 // 10
        lines.append(
            f"s{session},i{(session * 7 + step) % 30},{1_760_000_000_000 + 6_000 * number}"
        )
    file = tmp_path / "clicks.csv"
    file.write_text("\n".join(lines))
    return str(file)


@pytest.fixture
def witness():
    """Return a learner that was shown sessions in which n is followed by n + 1."""
    made = Witness(FusionSettings(max_clicks=500, min_examples=50), temperature=12.0)
    vectors = torch.nn.functional.normalize(torch.randn(30, 8), dim=1)
    starts = np.random.default_rng(0).integers(26, size=60).tolist()
    windows = from_lists([list(range(start, start + 4)) for start in starts], [1] * 60)
    made.remember(np.arange(30), np.zeros(30, np.int64), np.arange(-1, 29))
    made.observe(windows, torch.randn(windows.num_targets, 8), vectors, np.random.default_rng(0))
    return made


def test_there_is_a_row_for_each_channel_each_pair_and_all():
    assert list(choices()) == [
        *[(name,) for name in CHANNELS],
        *combinations(CHANNELS, 2),
        CHANNELS,
    ]


def test_a_ranker_of_some_channels_gives_no_weight_to_the_others(witness):
    learner = witness.fitted(("knn",), seed=0)

    by_feature = dict(zip(FEATURES, learner.weights.linear_F.tolist(), strict=True))
    assert learner.channels == ("knn",)
    assert by_feature["neighbours"] != 0
    assert [by_feature[name] for name in ("similarity", "after", "long_count")] == [0, 0, 0]


def test_too_few_clicks_for_a_ranker_are_an_error():
    with pytest.raises(ValueError, match="too few clicks"):
        Witness(FusionSettings(max_clicks=500), temperature=12.0).fitted(("knn",), seed=0)


def test_a_log_gives_every_row_and_a_table(log):
    report = measure(log, Settings(), argparse.Namespace(max_predictions=100, seed=0))

    figures = {tuple(row["channels"]): row["recall@20"] for row in report["rows"]}
    assert list(figures) == list(choices())
    assert figures[CHANNELS] > 0.9
    assert report["rows"][-1]["below_all"] == {"recall@20": [0.0, 0.0], "mrr@20": [0.0, 0.0]}
    low, high = report["rows"][list(figures).index(("popular",))]["below_all"]["recall@20"]
    assert low < figures[CHANNELS] - figures["popular",] < high
    assert report["predictions"] == 100
    assert report["own_lists"].keys() == set(CHANNELS)
    assert "rnn + knn " in table(report)
