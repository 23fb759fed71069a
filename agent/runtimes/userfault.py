"""Pages put into the memory of a process that handed over a userfaultfd of it.

Source: ioctl_userfaultfd(2); linux/userfaultfd.h (``struct uffdio_copy``).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import struct
from typing import Final

_COPY: Final = 0xC028AA03  # UFFDIO_COPY
_MESSAGES: Final = 16 * 32  # struct uffd_msg has 32 bytes
_REQUEST: Final = struct.Struct("=QQQQq")  # dst, src, len, mode, copy


def hear(memory: int, within_s: float) -> None:
    """Take what the kernel tells of changed mappings and missing pages; until then the process stands still.

    Returns when it has said something, or ``within_s`` have passed.

    Raises:
        OSError: the process is gone.
    """
    ready, _, _ = select.select([memory], [], [], within_s)
    if ready:
        with contextlib.suppress(BlockingIOError):
            os.read(memory, _MESSAGES)


def copy(memory: int, target: int, source: int, length: int) -> int:
    """Copy ``length`` bytes at address ``source`` of this process to ``target`` of the other; whole pages.

    Args:
        memory: the descriptor of the other's memory.

    Returns:
        How many bytes were copied: fewer when its mappings change meanwhile, at times none.

    Raises:
        FileNotFoundError: nothing that waits for pages is mapped there (yet).
        FileExistsError: the first page is there already.
        OSError: it is gone (ESRCH), or has no memory left (ENOMEM).
    """
    request = bytearray(_REQUEST.pack(target, source, length, 0, 0))
    try:
        fcntl.ioctl(memory, _COPY, request)
    except OSError as cause:
        if cause.errno != errno.EAGAIN:
            raise
    copied: int = _REQUEST.unpack(request)[4]
    return max(copied, 0)
