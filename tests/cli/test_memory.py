"""Freed memory goes back to the system while a role runs."""

import os
import threading
from pathlib import Path

import pytest

from cli.memory import freed_memory_returned

PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_what_a_peak_leaves_between_blocks_in_use_is_returned(wait_until):
    peak = [bytes(20_000) for _ in range(10_000)]
    kept = peak[::50]
    full = resident()
    del peak

    with freed_memory_returned(0.05):
        wait_until(lambda: resident() < full - 100 * MIB, 10, "memory is returned")

    assert len(kept) == 200


def test_the_thread_ends_with_the_role():
    with freed_memory_returned(60.0):
        assert "memory" in {thread.name for thread in threading.enumerate()}

    assert "memory" not in {thread.name for thread in threading.enumerate()}
