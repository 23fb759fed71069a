"""What the C library keeps of memory that is free, kept small: every node pays for it, also while nothing is done.

A C library without these calls (musl) is left as it is.

Source: mallopt(3), M_ARENA_MAX; malloc_trim(3).
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

_M_ARENA_MAX: Final = -8
_ARENAS: Final = 2


def share_arenas() -> None:
    """Have all threads share two arenas: each of its own keeps the largest it ever held."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Give the kernel what is free: after a job some 10 MiB lie between what is in use. Blocks for milliseconds."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
