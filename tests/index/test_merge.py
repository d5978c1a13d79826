"""Shapes: B queries, K best items, M further items."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from index.merge import merge


@given(
    num=st.integers(1, 12),
    k=st.integers(1, 8),
    more=st.integers(1, 60),
    shift=st.floats(-3, 3),
    seed=st.integers(0, 1000),
)
def test_merging_equals_sorting_everything(
    num: int, k: int, more: int, shift: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scores_BK = -np.sort(-rng.standard_normal((num, k)).astype(np.float32), axis=1)
    rows_BK = rng.integers(0, 10**6, (num, k))
    more_BM = (shift + rng.standard_normal((num, more))).astype(np.float32)
    more_rows_M = -2 - np.arange(more)

    merged_BK, merged_rows_BK = merge(scores_BK, rows_BK, more_BM, more_rows_M)

    all_scores = np.concatenate([scores_BK, more_BM], axis=1)
    all_rows = np.concatenate([rows_BK, np.broadcast_to(more_rows_M, more_BM.shape)], axis=1)
    order = np.argsort(-all_scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(merged_BK, np.take_along_axis(all_scores, order, axis=1))
    np.testing.assert_array_equal(merged_rows_BK, np.take_along_axis(all_rows, order, axis=1))
