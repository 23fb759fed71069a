"""Small files that a crash leaves whole: as they were, or as they were to be."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def write(file: Path, content: bytes, mode: int = 0o600) -> None:
    """Put ``content`` in the place of ``file``; it is on the disk when this returns. Blocks.

    Write, sync, rename, sync the folder: the order that survives a crash.

    Raises:
        OSError: it can't be written, or is a device or a folder; ``file`` is as it was.
    """
    if file.exists() and not file.is_file():  # a rename would take /dev/null from the whole machine
        raise OSError(errno.EINVAL, "Not an ordinary file", str(file))
    partial = file.with_name(file.name + ".tmp")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(file)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in ``folder`` on the disk. Blocks."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
