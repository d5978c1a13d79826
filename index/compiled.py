"""Compiles a function of numbers and arrays to machine code; knows nothing of what it computes."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def _cache_folder() -> Path:
    """Return where the machine code of these sources is kept.

    numba looks at one file's date only: after an upgrade it would go on with old code of functions
    that are called from other files, or stumble over types that are gone.
    """
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = os.environ.get("NUMBA_CACHE_DIR") or Path(user_cache) / "nextclick" / "compiled"
    return Path(root) / digest


numba.config.CACHE_DIR = str(_cache_folder())  # type: ignore[attr-defined]  # made at run time


def compiled(function: Function) -> Function:
    """Return the function, compiled at its first call.

    Needs concrete array types and no Python objects; indices are not checked. The code is kept in
    the user's cache, or where NUMBA_CACHE_DIR says; where no folder can be written every process
    compiles for itself, which takes some seconds.
    """
    try:
        made = numba.njit(cache=True, fastmath=True, nogil=True)(function)
    except RuntimeError:  # no folder that can be written
        made = numba.njit(fastmath=True, nogil=True)(function)
    return cast("Function", made)
