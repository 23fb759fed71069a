"""Ending when told to, for loops that go on after failures.

A task group whose member fails while the group's task is cancelled raises the failure alone, so whoever catches
that and goes on would never end.

Source: asyncio.TaskGroup; mended in Python 3.13 (gh-116720).
"""

from __future__ import annotations

import asyncio


def heed() -> None:
    """End this task if it was told to.

    Raises:
        asyncio.CancelledError: it was.
    """
    task = asyncio.current_task()
    if task and task.cancelling():
        raise asyncio.CancelledError
