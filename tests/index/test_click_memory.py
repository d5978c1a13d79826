"""The memory of clicks: linked by item and session, bounded, shipped and restored."""

import numpy as np
import pytest

from index.click_memory import LANES, NO_CLICK, ClickMemory, Columns, latest_clicks


def random_clicks(num, *, items=12, sessions=9, seed=0):
    """Rows, times and the number of the click before of clicks in interleaved sessions."""
    rng = np.random.default_rng(seed)
    session = rng.integers(sessions, size=num)
    last, before = {}, []
    for number, name in enumerate(session.tolist()):
        before.append(last.get(name, NO_CLICK))
        last[name] = number
    return rng.integers(items, size=num), 1_000 * np.arange(num), np.array(before)


def memory_of(clicks, *, capacity=1_000, batch=7, items=12):
    memory = ClickMemory(capacity=capacity, num_items=items)
    for start in range(0, len(clicks[0]), batch):
        memory.append(*(column[start : start + batch] for column in clicks))
    return memory


def walk(column_E, memory, number):
    """Follow one kind of link to older clicks."""
    seen = []
    while number >= memory.oldest:
        seen.append(number)
        distance = int(column_E[number % memory.capacity])
        if not distance:
            break
        number -= distance
    return seen


@pytest.mark.parametrize("capacity", [1_000, 300, 64])
def test_an_items_links_lead_to_all_its_clicks_that_are_held(capacity):
    rows, times, before = random_clicks(500)
    memory = memory_of((rows, times, before), capacity=capacity)

    for row in range(12):
        held = [n for n in range(memory.oldest, 500) if rows[n] == row]
        assert latest_clicks(memory.held, row, 1_000).tolist() == held[::-1]
        assert latest_clicks(memory.held, row, 11).tolist() == held[::-1][:11]


def test_the_threads_of_an_items_clicks_lead_past_the_clicks_of_the_others():
    rows, times, before = random_clicks(500)
    memory = memory_of((rows, times, before))

    for row in range(12):
        held = [n for n in range(500) if rows[n] == row][::-1]
        for lane in range(LANES):
            first = int(memory.facts.latest_NL[row, lane])
            found = walk(memory.links.to_same_item_E, memory, first)
            assert found == held[lane::LANES]


def test_an_item_that_a_session_had_of_late_is_marked():
    memory = ClickMemory(capacity=100, num_items=50)
    rows = [1, 2, 1, *range(3, 36), 2, 35]

    memory.append(rows, np.zeros(len(rows)), [NO_CLICK, *range(len(rows) - 1)])

    marked = np.flatnonzero(memory.links.again_E).tolist()
    assert marked == [2, len(rows) - 1], "of the 2 that is long ago nothing is known"


def test_a_sessions_links_lead_both_ways_and_to_its_first_click():
    rows, times, before = random_clicks(200)
    memory = memory_of((rows, times, before))
    links = memory.links

    for number in range(200):
        if before[number] != NO_CLICK:
            assert number - links.to_before_E[number] == before[number]
            assert before[number] + links.to_next_E[before[number]] == number
        first = number - links.to_first_E[number]
        assert before[first] == NO_CLICK
    firsts = np.flatnonzero(before == NO_CLICK)
    assert links.length_E[firsts].sum() == 200


def test_a_session_whose_click_before_is_gone_starts_anew():
    memory = ClickMemory(capacity=4, num_items=3)
    memory.append([0, 1, 1, 1, 1], np.arange(5), [NO_CLICK] * 5)

    memory.append([2], [9], [0])

    assert memory.links.to_first_E[5 % 4] == 0
    assert memory.links.to_before_E[5 % 4] == 0


def test_counts_decay_by_clicks_and_the_latest_are_most_popular():
    memory = ClickMemory(num_items=3)
    memory.append([0] * 50 + [1] * 3, np.arange(53), [NO_CLICK] * 53)
    assert memory.popular(3).tolist() == [0, 1]

    memory.append([2] * 40_000, np.arange(40_000), [NO_CLICK] * 40_000)
    memory.append([1] * 3, np.arange(3), [NO_CLICK] * 3)

    assert memory.popular(3).tolist() == [2, 1, 0]


def test_shipped_clicks_make_an_equal_memory():
    clicks = random_clicks(400)
    memory = memory_of(clicks)

    other = ClickMemory(capacity=1_000, num_items=12)
    other.extend(memory.columns())
    part = memory.columns(since=250)

    assert all((a == b).all() for a, b in zip(memory.links, other.links, strict=True))
    assert len(part.rows_B) == 150
    grown = memory_of(tuple(column[:250] for column in clicks))
    grown.extend(part)
    assert all((a == b).all() for a, b in zip(memory.links, grown.links, strict=True))


@pytest.mark.parametrize("capacity", [1_000, 100])
def test_a_restored_memory_continues_bit_for_bit(capacity):
    clicks = random_clicks(400)
    whole = memory_of(clicks, capacity=capacity)
    first = memory_of(tuple(column[:301] for column in clicks), capacity=capacity)

    second = ClickMemory(capacity=capacity)
    second.restore(first.state())
    second.append(*(column[301:] for column in clicks))

    for a, b in zip(whole.state()[:2], second.state()[:2], strict=True):
        assert all((x == y).all() for x, y in zip(a, b, strict=True))
    assert second.newest_ms == whole.newest_ms


def test_a_memory_of_another_capacity_is_refused():
    with pytest.raises(ValueError, match="another capacity"):
        ClickMemory(capacity=50).restore(memory_of(random_clicks(60), capacity=60).state())


@pytest.mark.parametrize(
    ("rows", "before", "text"),
    [
        ([5], [NO_CLICK], "row is not in"),
        ([-1], [NO_CLICK], "row is not in"),
        ([1], [0], "comes before"),
    ],
)
def test_clicks_that_would_break_the_links_are_refused(rows, before, text):
    memory = ClickMemory(num_items=5)

    with pytest.raises(ValueError, match=text):
        memory.append(rows, [0], before)
    assert memory.num_added == 0


def test_an_empty_batch_changes_nothing():
    memory = ClickMemory(num_items=2)
    memory.extend(Columns(*(np.zeros(0, kind) for kind in ("i4", "i8", "i4"))))

    assert (memory.num_added, memory.popular(2).tolist()) == (0, [])
