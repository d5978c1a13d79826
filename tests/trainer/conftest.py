"""Small learners and click streams for the trainer's tests."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from trainer.comparison import Comparison, Products
from trainer.evaluate import Score
from trainer.fusion_learner import FusionLearner
from trainer.learner import Learner, new_learner
from trainer.settings import LearningSettings, TrainerSettings
from trainer.stream_learner import StreamLearner


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def learning() -> Callable[..., LearningSettings]:
    def make(**overrides: object) -> LearningSettings:
        return LearningSettings.model_validate({"dim": 16, "dropout": 0.1, **overrides})

    return make


@pytest.fixture
def make_learner(learning: Callable[..., LearningSettings]) -> Callable[..., Learner]:
    def make(*, items: int = 0, seed: int = 0, **overrides: object) -> Learner:
        learner = new_learner(learning(**overrides), seed=seed)
        for item in range(items):
            learner.admit(f"item-{item}", [])
        return learner

    return make


@pytest.fixture
def make_comparison() -> Callable[..., Comparison]:
    """Make a comparison with this change in MRR and this standard error of it."""

    def make(change: float, *, error: float = 0.01, num: int = 5_000) -> Comparison:
        ratio, served, windows = 1 + change, 0.2 * num, num // 2
        residuals = (error * served) ** 2 * (windows - 1) / windows
        products = Products(windows, served * ratio**2 + residuals, served * ratio, served)
        hits = round(0.3 * num)
        return Comparison(Score(num, hits, ratio * served), Score(num, hits, served), products)

    return make


@pytest.fixture
def make_stream(
    make_learner: Callable[..., Learner], learning: Callable[..., LearningSettings]
) -> Callable[..., StreamLearner]:
    def make(*, seed: int = 0, full_softmax_items: int = 5000, **dataset: object) -> StreamLearner:
        settings = TrainerSettings.model_validate(
            {
                "learning": {"dim": 16, "full_softmax_items": full_softmax_items, "negatives": 64},
                "dataset": {"batch_targets": 100, "replay_windows": 200, **dataset},
            }
        )
        learner = new_learner(settings.learning, seed=seed)
        fusion = FusionLearner(settings.fusion, temperature=learner.temperature)
        return StreamLearner(learner, fusion, settings)

    return make


@pytest.fixture
def cyclic_clicks() -> Callable[..., list[tuple[str, str | None, str, int]]]:
    """Return clicks of users who walk round a ring of items: item n is followed by n + 1."""

    def make(num: int, *, items: int = 40, users: int = 50, seed: int = 0):
        rng = np.random.default_rng(seed)
        at = rng.integers(items, size=users)
        clicks = []
        for number in range(num):
            user = int(rng.integers(users))
            at[user] = (at[user] + 1) % items
            clicks.append((f"user-{user}", None, f"item-{at[user]}", 1_000 * number))
        return clicks

    return make
