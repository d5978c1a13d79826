import numpy as np
import pytest
import torch

from trainer.item_table import ItemTable


def table(num: int = 0) -> ItemTable:
    items = ItemTable(4, count_half_life_ms=1000.0)
    items.append([f"i{n}" for n in range(num)], torch.arange(4.0 * num).reshape(num, 4))
    return items


def test_rows_are_found_by_id_and_unknown_ids_have_none():
    assert [table(3).row("i2"), table(3).row("other")] == [2, -1]


def test_growth_beyond_the_capacity_keeps_every_row():
    items = table(3)
    items.accumulators_N[1] = 7.0

    items.append([f"more{n}" for n in range(5000)], torch.ones(5000, 4))

    assert len(items) == 5003
    assert items.weights_ND[2].tolist() == [8.0, 9.0, 10.0, 11.0]
    assert items.accumulators_N[:3].tolist() == [0.0, 7.0, 0.0]
    assert items.row("more4999") == 5002


def test_an_item_cannot_be_appended_twice():
    with pytest.raises(ValueError, match="twice"):
        table(3).append(["i1"], torch.ones(1, 4))


def test_counts_halve_in_one_half_life_and_time_never_runs_backwards():
    items = table(2)

    items.count(np.asarray([0, 0, 1]), 5000)
    items.count(np.asarray([1]), 6000)
    items.count(np.asarray([1]), 5500)

    assert items.counts_N.tolist() == [1.0, 2.5]
    assert items.counted_ms == 6000


def test_a_newcomer_without_context_is_a_random_unit_vector():
    items = table(2)

    vector_D = items.newcomer([], np.random.default_rng(0))

    assert float(vector_D.norm()) == pytest.approx(1.0, abs=1e-6)
