"""How sure the change in MRR is: the sums say what resampling the windows says."""

import math

import numpy as np
import pytest

from trainer.comparison import Change, Comparison
from trainer.evaluate import Score


def ranks_of(rng, shares, sizes):
    """Ranks of targets; the clicks of a window are hits or misses together, more or less."""
    window = np.repeat(rng.random(len(sizes)), sizes)
    hit = window + 0.5 * rng.random(sizes.sum()) < shares * 1.5
    return np.where(hit, rng.integers(1, 21, size=len(hit)), 100)


@pytest.fixture
def windows():
    rng = np.random.default_rng(5)
    sizes = rng.integers(1, 6, size=800)
    theirs = ranks_of(rng, 0.3, sizes)
    changed = rng.random(len(theirs)) < 0.3
    return sizes, np.where(changed, rng.permutation(theirs), theirs), theirs


def resampled(sizes, own, theirs, *, times=400):
    """The spread of the change over resampled windows."""
    rng = np.random.default_rng(0)
    starts = np.cumsum(sizes) - sizes
    a, b = (np.add.reduceat(np.where(r <= 20, 1 / r, 0), starts) for r in (own, theirs))
    drawn = rng.integers(len(sizes), size=(times, len(sizes)))
    return (a[drawn].sum(1) / b[drawn].sum(1)).std()


def test_the_error_is_that_of_resampled_windows(windows):
    sizes, own, theirs = windows
    compared = Comparison()

    compared.add(own, theirs, sizes)

    change = compared.change()
    assert change.mean == pytest.approx(compared.candidate.mrr / compared.serving.mrr - 1)
    assert change.error == pytest.approx(resampled(sizes, own, theirs), rel=0.1)


def test_it_does_not_matter_in_how_many_steps_the_clicks_came(windows):
    sizes, own, theirs = windows
    whole, parts = Comparison(), Comparison()
    whole.add(own, theirs, sizes)

    half = sizes[:300].sum()
    parts.add(own[:half], theirs[:half], sizes[:300])
    parts.add(own[half:], theirs[half:], sizes[300:])

    assert parts.change().mean == pytest.approx(whole.change().mean)
    assert parts.change().error == pytest.approx(whole.change().error)


def test_equal_versions_differ_by_nothing_for_sure(windows):
    sizes, own, _ = windows
    compared = Comparison()

    compared.add(own, own, sizes)

    assert compared.change() == Change(0.0, pytest.approx(0.0, abs=1e-9))


def test_a_few_windows_say_nothing():
    compared = Comparison()

    compared.add(np.full(29, 100), np.ones(29, np.int64), np.ones(29, np.int64))

    assert compared.change().error == math.inf


def test_against_a_version_without_any_hit_nothing_can_be_lost():
    compared = Comparison()

    compared.add(np.full(50, 100), np.full(50, 100), np.ones(50, np.int64))

    assert compared.change() == Change(0.0, 0.0)


def test_while_nothing_serves_only_the_candidate_is_scored():
    compared = Comparison()

    compared.add(np.array([1, 50]), None, np.array([2]))

    assert compared == Comparison(Score(2, 1, 1.0))
