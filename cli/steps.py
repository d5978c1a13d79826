"""Says on stderr what a long start is doing: a spinner on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console


class Steps:
    """Names each step, how far it is, and how long it took."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show a step while it runs; the function that it gives says how far it is."""
        started = time.monotonic()
        with self._console.status(text) as status:
            yield lambda detail: status.update(f"{text}: {detail}")
        seconds = time.monotonic() - started
        self.say(f"{text}: {seconds:.1f} s")

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
