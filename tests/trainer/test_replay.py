import numpy as np

from trainer.replay import ReplayBuffer
from trainer.windows import empty, from_lists


def windows_of(*values: int):
    return from_lists([[value, value, value] for value in values], [1] * len(values))


def test_an_empty_buffer_samples_nothing():
    assert len(ReplayBuffer(10).sample(100, np.random.default_rng(0))) == 0


def test_a_sample_has_about_the_wanted_targets():
    rng = np.random.default_rng(0)
    buffer = ReplayBuffer(1000)
    buffer.add(windows_of(*range(300)), rng)
    buffer.add(empty(), rng)

    sample = buffer.sample(100, rng)

    assert sample.num_targets == 100
    assert (sample.rows_BT[:, :1] == sample.rows_BT).all()


def test_the_buffer_is_bounded_and_favours_recent_windows():
    rng = np.random.default_rng(0)
    buffer = ReplayBuffer(100)
    for value in range(1000):
        buffer.add(windows_of(value), rng)

    newest = buffer.sample(20_000, rng).rows_BT[:, 0]

    assert len(buffer) == 100
    assert newest.mean() > 800
    assert newest.min() < 800


def test_a_narrow_window_leaves_nothing_of_the_wide_one_it_replaces():
    rng = np.random.default_rng(0)
    buffer = ReplayBuffer(1)
    buffer.add(from_lists([[1, 2, 3, 4, 5]], [1]), rng)

    buffer.add(from_lists([[8, 9]], [1]), rng)

    assert buffer.sample(1, rng).rows_BT.tolist() == [[8, 9]]
    assert buffer.tensors()["rows"][0, 2:].eq(0).all()


def test_a_restored_buffer_samples_the_same():
    rng = np.random.default_rng(0)
    buffer = ReplayBuffer(50)
    buffer.add(windows_of(*range(80)), rng)
    restored = ReplayBuffer(50)
    restored.restore(buffer.tensors())
    restored.add(windows_of(99), np.random.default_rng(1))
    buffer.add(windows_of(99), np.random.default_rng(1))

    expected = buffer.sample(30, np.random.default_rng(5)).rows_BT

    assert np.array_equal(restored.sample(30, np.random.default_rng(5)).rows_BT, expected)
