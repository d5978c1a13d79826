"""Shapes: F clicks, S sessions, N items, D dimensions."""

import numpy as np
import pytest

from trainer.covisitation_start import Float32, Int64, covisitation_start

GROUPS, GROUP_SIZE, DIM = 12, 30, 32
NUM_ITEMS = GROUPS * GROUP_SIZE


def planted_sessions(num: int = 1500, length: int = 5, seed: int = 0) -> tuple[Int64, Int64]:
    """Each session stays in one group of items but for one click in ten."""
    rng = np.random.default_rng(seed)
    group_S = rng.integers(GROUPS, size=num)
    rows = group_S[:, None] * GROUP_SIZE + rng.integers(GROUP_SIZE, size=(num, length))
    anywhere = rng.integers(NUM_ITEMS, size=(num, length))
    rows = np.where(rng.random((num, length)) < 0.1, anywhere, rows)
    return rows.reshape(-1), np.arange(num) * length


def start(
    rows_F: Int64,
    start_S: Int64,
    num_items: int = NUM_ITEMS,
    dim: int = DIM,
    seed: int = 0,
) -> Float32:
    return covisitation_start(rows_F, start_S, num_items, dim, np.random.default_rng(seed))


def unit(rows_ND: Float32) -> Float32:
    unit_ND: Float32 = rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return unit_ND


def test_items_of_one_group_start_near_each_other() -> None:
    start_ND = start(*planted_sessions())

    cosine_NN = unit(start_ND) @ unit(start_ND).T
    np.fill_diagonal(cosine_NN, -1.0)
    group_N = np.arange(NUM_ITEMS) // GROUP_SIZE
    nearest_N = cosine_NN.argsort(axis=1)[:, -10:]
    assert (group_N[nearest_N] == group_N[:, None]).mean() > 0.95
    other = group_N[:, None] != group_N
    assert cosine_NN[other].mean() < 0.2


def test_rows_are_float32_of_length_about_one() -> None:
    start_ND = start(*planted_sessions())

    assert start_ND.dtype == np.float32
    assert start_ND.shape == (NUM_ITEMS, DIM)
    assert np.linalg.norm(start_ND, axis=1) == pytest.approx(1.0, abs=0.15)


def test_no_component_carries_most_of_the_vectors() -> None:
    energy_D = np.square(start(*planted_sessions())).mean(axis=0)

    assert energy_D.max() < 5 / DIM


def test_equal_seeds_give_equal_rows_and_other_seeds_other_ones() -> None:
    sessions = planted_sessions()

    np.testing.assert_array_equal(start(*sessions), start(*sessions))
    assert not np.array_equal(start(*sessions), start(*sessions, seed=1))


def test_only_clicks_of_one_session_count_together() -> None:
    rows_F = np.asarray([0, 1, 0, 1, 2, 3, 2, 3])

    apart = unit(start(rows_F, np.asarray([0, 4]), num_items=4, dim=16))
    as_one = unit(start(rows_F, np.asarray([0]), num_items=4, dim=16))

    assert apart[0] @ apart[1] > 0.9
    assert apart[1] @ apart[2] < 0.3
    assert as_one[1] @ as_one[2] > apart[1] @ apart[2] + 0.2


def test_items_without_company_get_short_and_different_random_vectors() -> None:
    rows_F, start_S = planted_sessions()
    alone_F = np.arange(NUM_ITEMS, NUM_ITEMS + 3)
    rows_F, start_S = np.append(rows_F, alone_F), np.append(start_S, len(rows_F) + np.arange(3))

    start_ND = start(rows_F, start_S, num_items=NUM_ITEMS + 5)

    assert np.isfinite(start_ND).all()
    lengths_N = np.linalg.norm(start_ND, axis=1)
    assert ((lengths_N[NUM_ITEMS:] > 0.01) & (lengths_N[NUM_ITEMS:] < 0.3)).all()
    assert len(np.unique(start_ND[NUM_ITEMS:], axis=0)) == 5


@pytest.mark.parametrize("num_items", [1, 2, 7])
def test_a_catalogue_smaller_than_the_vectors_is_no_exception(num_items: int) -> None:
    rows_F = np.arange(14) % num_items

    start_ND = start(rows_F, np.asarray([0]), num_items=num_items)

    assert start_ND.shape == (num_items, DIM)
    assert np.isfinite(start_ND).all()


def test_sessions_of_one_click_give_random_vectors_only() -> None:
    start_ND = start(np.arange(50), np.arange(50), num_items=50)

    assert np.linalg.norm(start_ND, axis=1) == pytest.approx(0.1, abs=0.05)


def test_a_long_log_is_read_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    rows_F, start_S = planted_sessions()
    monkeypatch.setattr("trainer.covisitation_start._MAX_CLICKS", 100)

    bounded_ND = start(rows_F, start_S)

    np.testing.assert_array_equal(bounded_ND, start(rows_F[-100:], np.arange(20) * 5))


def test_many_pairs_leave_only_the_neighbouring_clicks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows_F = np.asarray([0, 1, 2] * 20)
    monkeypatch.setattr("trainer.covisitation_start._MAX_PAIRS", 10)

    start_ND = start(rows_F, np.arange(20) * 3, num_items=3, dim=16)

    whole_ND = unit(start_ND)
    assert whole_ND[0] @ whole_ND[1] > whole_ND[0] @ whole_ND[2]
