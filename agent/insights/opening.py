"""Opening a part: only what is an ordinary file, whoever brought the parts here."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from agent.insights.bounds import damaged


def descriptor(file: Path) -> int:
    """``file``, open for reading; the caller closes it.

    Raises:
        FileNotFoundError: it is not there.
        Refused: it is something else than a file.
    """
    try:
        opened = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as cause:
        raise damaged(file.name, cause.strerror) from cause
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise damaged(file.name, "it is no file")
    return opened
