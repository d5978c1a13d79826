import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.popularity import DecayedCounts

HALF_LIFE_MS = 1_000
CLICKS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(1_700_000_000_000, 1_700_000_900_000)),
    min_size=1,
    max_size=40,
)


def naive(clicks: list[tuple[int, int]], num_rows: int, now_ms: int) -> np.ndarray:
    counts = np.zeros(num_rows)
    for row, time_ms in clicks:
        counts[row] += 0.5 ** ((now_ms - time_ms) / HALF_LIFE_MS)
    return counts


@given(clicks=CLICKS, wait_ms=st.integers(0, 5_000), parts=st.integers(1, 5))
def test_lazy_decay_equals_the_naive_sum_in_any_order_and_batching(
    clicks: list[tuple[int, int]], wait_ms: int, parts: int
) -> None:
    now_ms = max(time_ms for _, time_ms in clicks) + wait_ms
    counts = DecayedCounts(HALF_LIFE_MS)

    for part in np.array_split(np.array(clicks, np.int64), parts):
        counts.add(part[:, 0], part[:, 1])

    expected = naive(clicks, len(counts), now_ms)
    np.testing.assert_allclose(counts.counts(now_ms), expected, rtol=1e-5, atol=1e-30)


def test_a_batch_of_one_time_counts_every_click() -> None:
    counts = DecayedCounts(HALF_LIFE_MS, num_rows=4)

    counts.add(np.array([2, 2, 0]), 5_000)

    assert counts.counts(5_000).tolist() == [1, 0, 2, 0]
    assert counts.counts(6_000).tolist() == [0.5, 0, 1, 0]


def test_rows_that_appear_are_counted_and_memory_follows_the_catalogue() -> None:
    counts = DecayedCounts(HALF_LIFE_MS, num_rows=2)
    counts.add(np.array([0]), 1_000)

    counts.add(np.array([5]), 1_000)
    counts.grow_to(8)
    counts.grow_to(3)

    assert len(counts) == 8
    assert counts.counts(1_000).tolist() == [1, 0, 0, 0, 0, 1, 0, 0]


def test_years_without_a_click_neither_overflow_nor_lose_new_clicks() -> None:
    counts = DecayedCounts(HALF_LIFE_MS)
    counts.add(np.array([0]), 0)

    counts.add(np.array([1]), 10**11)

    assert counts.counts(10**11).tolist() == [0, 1]
    assert counts.counts(10**14).tolist() == [0, 0]


def test_a_time_before_the_newest_click_reads_as_that_click() -> None:
    counts = DecayedCounts(HALF_LIFE_MS)
    counts.add(np.array([0]), 10**12)

    assert counts.counts(0).tolist() == [1]


def test_the_top_are_the_most_clicked_by_now_and_never_rows_without_clicks() -> None:
    counts = DecayedCounts(HALF_LIFE_MS, num_rows=6)
    counts.add(np.array([4, 4, 4]), 0)
    counts.add(np.array([1, 3, 3]), 2_000)

    rows, scores = counts.top(2, 2_000)
    everything, _ = counts.top(10, 2_000)

    assert rows.tolist() == [3, 1]
    assert scores.tolist() == [2, 1]
    assert everything.tolist() == [3, 1, 4]


def test_equal_counts_come_in_row_order() -> None:
    counts = DecayedCounts(HALF_LIFE_MS)
    counts.add(np.array([3, 1, 2]), 0)

    assert counts.top(2, 0)[0].tolist() == [1, 2]


def test_nothing_clicked_means_no_top() -> None:
    counts = DecayedCounts(HALF_LIFE_MS, num_rows=3)
    counts.add(np.empty(0, np.int64), 5)

    assert counts.counts(0).tolist() == [0, 0, 0]
    assert len(counts.top(5, 0)[0]) == 0


def test_a_negative_row_and_a_half_life_of_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="row -1"):
        DecayedCounts(HALF_LIFE_MS).add(np.array([-1]), 0)
    with pytest.raises(ValueError, match="half-life"):
        DecayedCounts(0)


def test_a_state_continues_bit_for_bit():
    rng = np.random.default_rng(0)
    one, other = DecayedCounts(700.0), DecayedCounts(700.0)
    one.add(rng.integers(9, size=50), 1_000_000)
    one.add(np.asarray([3]), 1_000_300)

    other.restore(one.state())
    for counts in (one, other):
        counts.add(np.asarray([1, 12]), 1_000_777)

    assert np.array_equal(one.counts(1_001_000), other.counts(1_001_000))
    assert np.array_equal(one.state().weights_N, other.state().weights_N)
    assert other.newest_ms == 1_000_777


def test_set_counts_go_on_decaying_from_their_time():
    counts = DecayedCounts(1000.0)
    given_N = np.asarray([4.0, 2.0])

    counts.set_counts(given_N, 5000)
    counts.add(np.asarray([1]), 6000)

    assert counts.counts(6000).tolist() == [2.0, 2.0]
    assert given_N.tolist() == [4.0, 2.0]
