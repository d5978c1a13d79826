"""Gives memory that was freed back to the system while a role runs; knows nothing of what used it.

A backlog, a restore or a second version in memory is a peak of seconds. glibc keeps what such a
peak leaves behind, scattered between blocks that are still in use, and the process stays as large.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PERIOD_SECONDS = 30.0


@contextmanager
def freed_memory_returned(period_seconds: float = _PERIOD_SECONDS) -> Iterator[None]:
    """Return freed memory every period, in a thread; does nothing with another C library."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        yield
        return
    over = threading.Event()

    def run() -> None:
        while not over.wait(period_seconds):
            trim(0)  # ctypes gives the interpreter away meanwhile: some milliseconds at 1 GB

    thread = threading.Thread(target=run, name="memory", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=1)
