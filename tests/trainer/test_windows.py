import numpy as np
import pytest

from trainer.windows import (
    CHUNK,
    CONTEXT,
    batches_by_length,
    concatenate,
    cut_sessions,
    empty,
    from_lists,
    gather,
)


def spans_of(*lengths: int):
    stops = np.cumsum(lengths)
    return cut_sessions(stops - np.asarray(lengths), stops)


def test_a_short_session_is_one_window_that_predicts_all_but_its_first_click():
    windows = gather(np.asarray([5, 6, 7]), spans_of(3))

    assert windows.rows_BT.tolist() == [[5, 6, 7]]
    assert windows.target_rows.tolist() == [6, 7]


def test_a_session_of_one_click_gives_no_window():
    assert len(spans_of(1, 1)) == 0


def test_a_long_session_is_cut_into_chunks_that_overlap_by_their_context_only():
    rows_F = np.arange(40)

    windows = gather(rows_F, spans_of(40))

    assert windows.target_rows.tolist() == list(range(1, 40))
    assert windows.lengths_B.tolist() == [CHUNK, CONTEXT + CHUNK, CONTEXT + 8]
    assert windows.rows_BT[1, 0] == CHUNK - CONTEXT


def test_padding_is_never_a_target():
    windows = from_lists([[1, 2], [3, 4, 5]], [1, 2])

    assert windows.target_mask.tolist() == [[False, True, False], [False, False, True]]


def test_concatenation_widens_the_narrower_windows():
    joined = concatenate([from_lists([[1, 2]], [1]), empty(), from_lists([[3, 4, 5]], [1])])

    assert joined.rows_BT.tolist() == [[1, 2, 0], [3, 4, 5]]
    assert joined.num_targets == 3


def test_selected_windows_are_trimmed_to_their_longest():
    windows = from_lists([[1, 2], [3, 4, 5]], [1, 1])

    assert windows.select(np.asarray([0])).rows_BT.tolist() == [[1, 2]]


@pytest.mark.parametrize("seed", range(3))
def test_batches_hold_every_window_once_and_about_the_wanted_targets(seed):
    rng = np.random.default_rng(seed)
    spans = spans_of(*rng.integers(2, 30, 200).tolist())

    batches = batches_by_length(spans, 100, rng)

    assert sorted(np.concatenate(batches).tolist()) == list(range(len(spans)))
    sizes = [spans.select(batch).num_targets for batch in batches]
    assert max(sizes) <= 100 + CHUNK
