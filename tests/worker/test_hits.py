"""The live hit rate: the next click of the session against the list before it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.hits import NextClickMeter
from worker.sessions import EMPTY


@pytest.fixture
def meter():
    return NextClickMeter(3)


def measure_by_maker(meter, *clicks, maker=1):
    slots, codes, continued, lists = zip(*clicks, strict=True)
    columns = np.array(slots), np.array(codes), np.array(continued), np.array(lists, np.int32)
    return meter.measure(*columns, np.full(len(columns[0]), maker))


def measure(meter, *clicks):
    measured = measure_by_maker(meter, *clicks)
    return sum(lists.evaluated for lists in measured), sum(lists.hits for lists in measured)


def test_a_click_on_an_item_of_the_last_list_is_a_hit(meter):
    assert measure(meter, (1, 5, False, [7, 8, 9])) == (0, 0)
    assert measure(meter, (1, 8, True, [1, 2, 3])) == (1, 1)
    assert measure(meter, (1, 8, True, [1, 2, 3])) == (1, 0)


def test_clicks_of_one_batch_are_compared_with_each_other(meter):
    counted = measure(
        meter, (1, 5, False, [7, 8, 9]), (2, 5, False, [1, 2, 3]), (1, 9, True, [4, 5, 6]),
        (1, 7, True, [4, 5, 6]),
    )  # fmt: skip

    assert counted == (2, 1)
    assert measure(meter, (2, 3, True, [0, 0, 0]), (1, 6, True, [0, 0, 0])) == (2, 2)


def test_a_forgotten_list_is_not_counted(meter):
    measure(meter, (1, 5, False, [7, 8, 9]), (5000, 5, False, [7, 8, 9]))

    meter.forget_slot(1)
    meter.forget_slot(10**6)
    assert measure(meter, (1, 7, True, [7, 8, 9]), (5000, 7, True, [7, 8, 9])) == (1, 1)
    meter.forget()
    assert measure(meter, (1, 7, True, [EMPTY] * 3)) == (0, 0)


def test_an_empty_batch_counts_nothing(meter):
    empty = np.empty(0, np.int64)

    assert meter.measure(empty, empty, empty.astype(bool), np.empty((0, 3)), empty) == []


def test_a_hit_counts_for_the_maker_of_the_list_not_for_who_serves_now(meter):
    measure_by_maker(meter, (1, 5, False, [7, 8, 9]), (5000, 5, False, [7, 8, 9]), maker=1)

    both = measure_by_maker(meter, (1, 7, True, [1, 2, 3]), (1, 4, True, [1, 2, 3]), maker=2)

    assert both == [(1, 1, 1), (2, 1, 0)]
    assert measure_by_maker(meter, (5000, 8, True, [1, 2, 3]), maker=3) == [(1, 1, 1)]
    assert measure_by_maker(meter, (1, 3, True, [1, 2, 3]), maker=3) == [(2, 1, 1)]


CLICK = st.tuples(
    st.sampled_from([0, 1, 2, 1023, 1024, 5000]),
    st.integers(-3, 5).filter(lambda code: code != EMPTY),
    st.booleans(),
    st.lists(st.integers(0, 5), min_size=3, max_size=3, unique=True)
    | st.sampled_from([[EMPTY] * 3, [4, EMPTY, EMPTY], [-2, 1, 2]]),
)


@given(batches=st.lists(st.lists(CLICK, min_size=1, max_size=12), max_size=6))
def test_any_batches_count_as_clicks_one_by_one_do(batches):
    meter, lists = NextClickMeter(3), {}
    for batch in batches:
        evaluated = hits = 0
        for slot, code, continued, shown in batch:
            before = [item for item in lists.get(slot, []) if item != EMPTY]
            if continued and before:
                evaluated += 1
                hits += code in before
            lists[slot] = shown

        assert measure(meter, *batch) == (evaluated, hits)
