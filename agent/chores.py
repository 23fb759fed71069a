"""What runs beside the jobs for as long as the agent does, each keeping one thing in order; ``equipment`` starts it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent import heap
from agent.checkpoint import retention
from agent.checkpoint.retention import Disk, Policy
from agent.checkpoint.service import CheckpointService
from agent.checkpoint.shelf import Shelf
from agent.jobs.runner import Runner

log = logging.getLogger(__name__)
RETAIN_EVERY_S: Final = 300.0
GIVE_BACK_EVERY_S: Final = 30.0


async def retain(
    shelf: Shelf,
    look: Callable[[], Disk],
    busy: Callable[[], frozenset[str]],
    policy: Policy,
    leaving: Callable[[Path], None],
) -> None:
    """Remove checkpoints that have expired, every few minutes.

    Args:
        look: the disk that they are on, now. Blocks.
        leaving: as in ``retention.sweep``.
    """
    while True:
        await asyncio.sleep(RETAIN_EVERY_S)
        try:
            disk = await asyncio.to_thread(look)
            gone = await asyncio.to_thread(
                retention.sweep, shelf, disk, policy, busy=busy(), leaving=leaving
            )
        except OSError as cause:
            log.warning("retention could not look at the disk: %s", cause)
            continue
        for checkpoint_id in gone:
            log.info("checkpoint %s has expired, removed", checkpoint_id)


async def sweep(runner: Runner, checkpoints: CheckpointService) -> None:
    """Once all that a dead agent had begun is settled: undo what no job knows of."""
    await runner.settled.wait()
    await checkpoints.sweep()
    await asyncio.Event().wait()  # a service runs for as long as the agent


async def give_memory_back() -> None:
    """Give the kernel the memory that jobs and restores have freed, every half a minute."""
    while True:
        await asyncio.sleep(GIVE_BACK_EVERY_S)
        await asyncio.to_thread(heap.give_back)
