"""The largest of many numbers, against sorting them."""

import numpy as np
import pytest

from index.select import largest


@pytest.mark.parametrize("num", [0, 1, 5, 100, 3_000])
@pytest.mark.parametrize("k", [1, 5, 120])
@pytest.mark.parametrize("kind", ["spread", "equal", "narrow", "zeros"])
def test_they_are_those_that_sorting_finds(num, k, kind):
    rng = np.random.default_rng(num + k)
    values = {
        "spread": 10.0 ** rng.uniform(-30, 30, num),
        "equal": rng.integers(1, 4, num),
        "narrow": 1.0 + rng.random(num) * 1e-3,
        "zeros": np.zeros(num),
    }[kind].astype(np.float32)

    places = largest(values, k)

    expected = np.argsort(-values, kind="stable")[:k]
    assert sorted(places.tolist()) == sorted(expected.tolist())
