import msgspec
import pytest

from trainer.dataset import Admission, BufferState, SessionBuffer
from trainer.settings import DatasetSettings
from trainer.windows import CHUNK, CONTEXT

MINUTE = 60_000


def add(buffer: SessionBuffer, row: int, *, user="u", session=None, time_ms=0) -> bool:
    opened = buffer.open(user, session, time_ms)
    if opened is None:
        return False
    buffer.append(user, opened, row)
    return True


def taken(buffer: SessionBuffer) -> list[list[int]]:
    windows = buffer.take()
    return [
        row[:length].tolist()
        for row, length in zip(windows.rows_BT, windows.lengths_B, strict=True)
    ]


def test_a_first_click_waits_until_there_is_one_to_predict():
    buffer = SessionBuffer(DatasetSettings())

    add(buffer, 1)
    nothing = taken(buffer)
    add(buffer, 2)

    assert nothing == []
    assert taken(buffer) == [[1, 2]]


def test_later_windows_begin_with_learnt_items_that_are_no_targets():
    buffer = SessionBuffer(DatasetSettings())
    for row in range(1, 4):
        add(buffer, row)
    buffer.take()

    add(buffer, 9)
    windows = buffer.take()

    assert windows.rows_BT.tolist() == [[1, 2, 3, 9]]
    assert windows.target_rows.tolist() == [9]


def test_each_click_after_the_first_is_a_target_exactly_once():
    buffer = SessionBuffer(DatasetSettings(user_clicks_per_hour=100))
    targets = []
    for row in range(100):
        add(buffer, row)
        if row % 7 == 0:
            targets += buffer.take().target_rows.tolist()

    targets += buffer.take().target_rows.tolist()

    assert sorted(targets) == list(range(1, 100))


def test_no_window_is_longer_than_context_and_chunk():
    buffer = SessionBuffer(DatasetSettings(user_clicks_per_hour=1000))
    for row in range(200):
        add(buffer, row)

    assert buffer.num_targets == 199
    assert max(map(len, taken(buffer))) == CONTEXT + CHUNK
    assert buffer.num_targets == 0


@pytest.mark.parametrize(
    ("second", "joined"),
    [
        ({"time_ms": 30 * MINUTE}, True),
        ({"time_ms": 30 * MINUTE + 1}, False),
        ({"session": "b"}, False),
        ({"session": None}, True),
        ({"session": "a", "time_ms": -5 * MINUTE}, True),
    ],
)
def test_a_session_ends_after_the_gap_or_with_another_id(second, joined):
    buffer = SessionBuffer(DatasetSettings())
    add(buffer, 1, session="a")

    add(buffer, 2, **second)

    assert taken(buffer) == ([[1, 2]] if joined else [])


def test_clicks_of_an_ended_session_are_still_learnt():
    buffer = SessionBuffer(DatasetSettings())
    add(buffer, 1, session="a")
    add(buffer, 2, session="a")

    add(buffer, 3, session="b")

    assert taken(buffer) == [[1, 2]]


def test_users_above_the_cap_are_ignored_until_the_next_hour():
    buffer = SessionBuffer(DatasetSettings(user_clicks_per_hour=2))

    kept = [add(buffer, row, time_ms=row * MINUTE) for row in (0, 1, 2, 61)]

    assert kept == [True, True, False, True]


def test_the_user_idle_for_longest_is_forgotten_and_its_clicks_are_learnt():
    buffer = SessionBuffer(DatasetSettings(max_open_sessions=2))
    add(buffer, 1, user="old")
    add(buffer, 2, user="old")
    add(buffer, 3, user="other")

    add(buffer, 4, user="new")
    learnt = taken(buffer)
    add(buffer, 5, user="old")

    assert learnt == [[1, 2]]
    assert len(buffer) == 2
    assert taken(buffer) == []


def test_a_restored_buffer_continues_in_the_same_order():
    original = SessionBuffer(DatasetSettings())
    for row, user in enumerate("abcabcba"):
        add(original, row, user=user)
    encoded = msgspec.json.encode(original.state())
    restored = SessionBuffer(DatasetSettings())
    restored.restore(msgspec.json.decode(encoded, type=BufferState))

    for buffer in (original, restored):
        add(buffer, 50, user="b")

    assert restored.num_targets == original.num_targets
    assert taken(restored) == taken(original)


def test_an_item_is_admitted_after_enough_clicks_and_while_there_is_room():
    admission = Admission(DatasetSettings(admission_clicks=2, max_items=10))

    assert [admission.admits("a", 3), admission.admits("a", 3)] == [False, True]
    assert [admission.admits("b", 10), admission.admits("b", 10)] == [False, False]


def test_restored_admission_remembers_earlier_clicks():
    admission = Admission(DatasetSettings(admission_clicks=2))
    admission.admits("a", 0)
    restored = Admission(DatasetSettings(admission_clicks=2))
    restored.restore(admission.state())

    assert restored.admits("a", 0)
