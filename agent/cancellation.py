"""Whether this task was told to end, for loops that go on after failures.

A task group whose member fails while the group's task is cancelled raises the failure alone, so whoever catches
that and goes on would never end.

Source: asyncio.TaskGroup; mended in Python 3.13 (gh-116720).
"""

from __future__ import annotations

import asyncio


def is_asked() -> bool:
    """Whether this task was cancelled and has not ended yet."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def heed() -> None:
    """End this task if it was told to.

    Raises:
        asyncio.CancelledError: it was.
    """
    if is_asked():
        raise asyncio.CancelledError
