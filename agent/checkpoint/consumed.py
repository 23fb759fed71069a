"""A file that is read once, from front to back, and gives its room on the disk back while it is.

Source: fallocate(2), FALLOC_FL_PUNCH_HOLE; ext4, xfs, btrfs and tmpfs know it.
"""

from __future__ import annotations

import ctypes
import io
from pathlib import Path
from typing import Final

_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02
EVERY_BYTES: Final = 64 << 20  # often enough for the disk, seldom enough for the file system
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Consumed(io.FileIO):
    """A file of which nothing is on the disk any more once it was read.

    A file system that can't do this keeps the whole file until it is removed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "r+")
        self._read = self._gone = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes; fewer only at the end."""
        piece = super().read(-1 if size is None else size) or b""
        self._read += len(piece)
        if self._read - self._gone >= EVERY_BYTES:
            self._give_back(self._read // EVERY_BYTES * EVERY_BYTES)
        return piece

    def _give_back(self, until: int) -> None:
        begin, self._gone = self._gone, until
        length = ctypes.c_long(until - begin)
        _LIBC.fallocate(self.fileno(), _KEEP_SIZE | _PUNCH_HOLE, ctypes.c_long(begin), length)
