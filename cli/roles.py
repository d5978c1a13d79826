"""Run a long-running role: signals, threads of the numeric libraries, exit codes."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

Role = tuple[Callable[[], None], Callable[[], None]]


def run_role(construct: Callable[[], Role], *, name: str) -> None:
    """Construct a role and run it until SIGTERM or SIGINT; a second signal exits at once.

    An error ends the process with the exit code of `stream/exit_codes.py`: the state is in Kafka
    and on disk, so the supervisor's restart is the recovery.
    """
    import structlog

    from cli.memory import freed_memory_returned
    from stream.exit_codes import BUG, exit_code

    log = structlog.get_logger(name)
    stop: list[Callable[[], None]] = []
    stopping = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping or not stop:
            os._exit(128 + number)
        stopping = True
        stop[0]()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    single_thread()
    try:
        run, stop_role = construct()
        _collect_rarely()
        stop.append(stop_role)
        with freed_memory_returned():
            run()
    except Exception as error:
        code = exit_code(error)
        # A known cause is said in its message; only a bug needs the stack.
        log.critical("exiting", error=str(error), code=code, exc_info=code == BUG)
        sys.stderr.flush()
        # Client threads may hang in a broken state: nothing of them is waited for.
        os._exit(code)


def _collect_rarely() -> None:
    """Look for cycles every 50,000 allocations instead of 700, and never in what is loaded now.

    A batch allocates tens of thousands of objects that reference counting frees by itself.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def single_thread() -> None:
    """Give torch and FAISS one thread: a process is one worker, more threads only thrash."""
    import torch

    from index.threads import use_threads

    torch.set_num_threads(1)
    use_threads(1)
