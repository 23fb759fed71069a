"""How much may be written to the node's disk, and what its errors mean."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from agent.errors import INSUFFICIENT_STORAGE, Broken, Refused

_CHECK_EVERY: Final = 32 << 20  # bytes written between two looks at the free space


def out_of_space(folder: Path, why: str) -> Refused:
    """The node has no room for an image."""
    return Refused(
        f"There is no room for the image in {folder}; free some space or raise the cache's limit.",
        code=INSUFFICIENT_STORAGE,
        details=why,
    )


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk within the block into INSUFFICIENT_STORAGE, other failures into Broken."""
    try:
        yield
    except OSError as cause:
        if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise out_of_space(folder, str(cause)) from cause
        raise Broken(f"The disk of {folder} failed.", details=str(cause)) from cause


class Budget:
    """How much may be unpacked. For several threads."""

    def __init__(self, folder: Path, most: int, free_floor: int) -> None:
        """Allow ``most`` bytes, and never less than ``free_floor`` bytes free on the disk."""
        self._folder, self._most, self._floor = folder, most, free_floor
        self._lock = threading.Lock()
        self._used = 0
        self._checked = 0

    def allow(self, size: int) -> None:
        """Look ahead: may ``size`` bytes be used in all?

        Raises:
            Refused: that is more than the image declared.
        """
        if size > self._most:
            raise Refused(f"The image unpacks to more than the {self._most} bytes allowed.")

    def take(self, size: int) -> None:
        """Use ``size`` bytes more.

        Raises:
            Refused: that is more than the image declared, or the disk is full.
        """
        with self._lock:
            self._used += size
            self.allow(self._used)
            if self._used - self._checked < _CHECK_EVERY:
                return
            self._checked = self._used
        if free_bytes(self._folder) < self._floor:
            raise out_of_space(self._folder, f"less than {self._floor} bytes would stay free")


def free_bytes(folder: Path) -> int:
    """Free for this process on ``folder``'s file system."""
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize
