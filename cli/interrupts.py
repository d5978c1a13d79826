"""Ctrl-C and SIGTERM during a long command: first ask, then leave, and never disturb a clean-up."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """A signal leaves by SystemExit, except while the command can end by itself when asked."""

    def __init__(self) -> None:
        self._asking: Event | None = None
        self._ignoring = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals in this block."""
        before: dict[signal.Signals, Callable[..., object] | int | None] = {
            number: signal.signal(number, self._on_signal) for number in _SIGNALS
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def asking(self, stop: Event) -> Iterator[None]:
        """In this block the first signal sets `stop`; a second one leaves."""
        self._asking = stop
        try:
            yield
        finally:
            self._asking = None

    def ignore(self) -> None:
        """Ignore signals from now on: what is being cleaned up takes bounded time."""
        self._ignoring = True

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._ignoring:
            return
        if self._asking is not None and not self._asking.is_set():
            self._asking.set()
            return
        self._ignoring = True
        raise SystemExit(128 + number)
