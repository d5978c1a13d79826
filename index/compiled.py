"""Compiles a function of numbers and arrays to machine code; knows nothing of what it computes."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Return the function, compiled at its first call.

    Needs concrete array types and no Python objects; indices are not checked. The code is kept
    beside the source or in the user's cache (NUMBA_CACHE_DIR); where neither can be written every
    process compiles for itself, which takes some seconds.
    """
    try:
        made = numba.njit(cache=True, fastmath=True, nogil=True)(function)
    except RuntimeError:  # no folder that can be written
        made = numba.njit(fastmath=True, nogil=True)(function)
    return cast("Function", made)
