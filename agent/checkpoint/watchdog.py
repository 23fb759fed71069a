"""Thaws what a dead dump left frozen, at start and while the agent runs.

Only containers of our own plans are looked at: a pause that an operator made is left alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from agent import errors
from agent.checkpoint import plan, window
from agent.checkpoint.plan import Dump, Folder
from agent.runtimes import detached
from agent.runtimes.commands import Host

EVERY_S: Final = 3.0
_log = logging.getLogger(__name__)


async def watch(host: Host, data_dir: str, active: Callable[[], frozenset[str]]) -> None:
    """Look every few seconds, for ever.

    Args:
        active: the jobs that are being worked on; they thaw for themselves.
    """
    while True:
        await look(host, data_dir, active())
        await asyncio.sleep(EVERY_S)


async def look(host: Host, data_dir: str, active: frozenset[str] = frozenset()) -> int:
    """Thaw the containers of dumps whose script is dead; returns how many dumps were like that.

    A dump that can't be thawed is logged and tried again at the next look.
    """
    dead = 0
    for folder in list(plan.folders(host, data_dir)):
        dump = folder.read()
        if dump is None or folder.here.name in active or not _is_dead(folder):
            continue
        dead += 1
        await _release(folder, dump)
    return dead


def _is_dead(folder: Folder) -> bool:
    """The script began and is gone without a result: it was killed."""
    process = folder.process()
    return bool(process and not folder.result() and not detached.is_alive(folder.host, process))


async def _release(folder: Folder, dump: Dump) -> None:
    try:
        await window.close(folder, dump)
    except (errors.SnapError, OSError) as cause:
        _log.error("job %s may have left a container frozen: %s", dump.job_id, cause)
