"""Bad versions planted in a trainer of a stream that moves: each is refused, with its reason."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch.nn.functional import normalize

from model.store import Store
from stream.simulator import SimulatedClicks, Simulator, SimulatorSettings
from trainer import state
from trainer.checkpoint import Content
from trainer.gate import Verdict
from trainer.releases import Releases
from trainer.settings import TrainerSettings
from trainer.start import begin
from trainer.stream_learner import Frozen, StreamLearner

WORLD = SimulatorSettings(items=300, users=2_000, truth="off", new_items_per_1000_clicks=20.0)
DAY_CLICKS, JUDGED_CLICKS = 8_000, 4_000
NOW_MS = 1_700_000_000_000
LEARNS_NOTHING = 1e-9

Spoil = Callable[[StreamLearner], None]


def nothing(stream: StreamLearner) -> None:
    pass


def settings(**overrides: object) -> TrainerSettings:
    return TrainerSettings.model_validate(
        {
            "checkpoint_dir": "/nowhere",
            "learning": {"dim": 32},
            "dataset": {"batch_targets": 500, "user_clicks_per_hour": 100_000},
            "max_predictions": 2_000,
            **overrides,
        }
    )


def learn(stream: StreamLearner, clicks: SimulatedClicks) -> None:
    columns = zip(clicks.user_ids, clicks.session_ids, clicks.item_ids, strict=True)
    for number, (user, session, item) in enumerate(columns):
        stream.add(user, session, item, number)
        if stream.full:
            stream.step(number)
    stream.step(len(clicks))


class History(NamedTuple):
    """The trainer after one day and after two, the second day's clicks, and those after it."""

    yesterday: Content
    today: Content
    second_day: SimulatedClicks
    next_clicks: SimulatedClicks


@pytest.fixture(scope="module")
def history() -> History:
    simulator = Simulator(WORLD, seed=1)
    stream, _ = begin(settings(), None)
    learn(stream, simulator.take(DAY_CLICKS))
    yesterday = state.capture(stream, state.Position())
    second_day = simulator.take(DAY_CLICKS)
    learn(stream, second_day)
    assert stream.fusion.refit(seed=0)
    today = state.capture(stream, state.Position())
    return History(yesterday, today, second_day, simulator.take(JUDGED_CLICKS))


class Desk:
    """A trainer whose version of today serves."""

    def __init__(self, history: History, store: Store) -> None:
        self.history = history
        self.store = store
        self.sent: list[object] = []

    def learner(self, content: Content, *, rate: float) -> StreamLearner:
        fusion = {"min_examples": 1_000_000}
        return state.restore(content, settings(stream_rate=rate, fusion=fusion))[0]

    def release(
        self, stream: StreamLearner, early: Spoil = nothing, late: Spoil = nothing
    ) -> Verdict:
        """Release after the next clicks; something is spoilt before them or afterwards."""
        releases = Releases(self.store, self.sent.append, settings())
        serving = self.learner(self.history.today, rate=1.0).learner
        version = "20231113T000000000Z-00000000"
        releases.serve(
            stream, version, Frozen(serving.frozen_encoder(), serving.items.unit_vectors())
        )
        early(stream)
        learn(stream, self.history.next_clicks)
        late(stream)
        return releases.release(stream, trained_through={}, now_ms=NOW_MS)


@pytest.fixture
def desk(history, tmp_path):
    return Desk(history, Store(str(tmp_path)))


def shuffle_labels(stream):
    """Give every item the vector of another."""
    weights_ND = stream.learner.items.weights_ND
    generator = torch.Generator().manual_seed(0)
    weights_ND.copy_(weights_ND[torch.randperm(len(weights_ND), generator=generator)].clone())


def collapse_on_the_popular(stream):
    """Pull vectors towards what is asked for, the more the more popular an item is."""
    learner = stream.learner
    counts_N = learner.items.counts_N.float()
    unit_ND = learner.items.unit_vectors()
    asked_D = normalize(counts_N @ unit_ND, dim=0)
    pull_N = counts_N / counts_N.max()
    learner.items.weights_ND.copy_(normalize(unit_ND + 3 * pull_N[:, None] * asked_D, dim=1))


def poison_an_item(stream):
    stream.learner.items.weights_ND[3, 0] = float("nan")


def poison_the_encoder(stream):
    with torch.no_grad():
        next(stream.learner.encoder.parameters()).view(-1)[0] = float("inf")


def poison_the_ranker(stream):
    stream.fusion.weights = stream.fusion.weights._replace(
        linear_F=stream.fusion.weights.linear_F * float("nan")
    )


def misshape(stream):
    """Cut a dimension off the item vectors."""
    stream.learner.items.weights_ND = stream.learner.items.weights_ND[:, :-1]


def empty_an_item(stream):
    stream.learner.items.weights_ND[3] = 0.0


def test_what_goes_on_learning_is_accepted(desk):
    stream = desk.learner(desk.history.today, rate=1.0)

    verdict = desk.release(stream)

    assert (verdict.verdict, verdict.reason) == ("accepted", "not_worse")
    assert len(desk.sent) == 1


@pytest.mark.matrix("F43")
@pytest.mark.parametrize("spoil", [shuffle_labels, collapse_on_the_popular])
def test_a_version_that_recommends_worse_is_refused_by_its_score(desk, spoil):
    stream = desk.learner(desk.history.today, rate=LEARNS_NOTHING)

    verdict = desk.release(stream, early=spoil)

    assert (verdict.verdict, verdict.reason) == ("refused", "mrr")
    assert desk.sent == []


def test_a_version_that_is_stale_by_a_day_is_refused_by_its_score(desk):
    stream = desk.learner(desk.history.yesterday, rate=LEARNS_NOTHING)
    learn(stream, desk.history.second_day)  # it sees the day's clicks and learns nothing

    verdict = desk.release(stream)

    assert (verdict.verdict, verdict.reason) == ("refused", "mrr")
    assert desk.sent == []


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (shuffle_labels, "learnt_clicks"),
        (collapse_on_the_popular, "popularity"),
        (poison_an_item, "not_finite"),
        (poison_the_encoder, "not_finite"),
        (poison_the_ranker, "ranker"),
        (misshape, "shape"),
        (empty_an_item, "zero_row"),
    ],
)
def test_a_version_that_breaks_after_its_score_was_taken_is_refused(desk, spoil, reason):
    stream = desk.learner(desk.history.today, rate=1.0)

    verdict = desk.release(stream, late=spoil)

    assert (verdict.verdict, verdict.reason) == ("refused", reason)
    assert desk.sent == []
