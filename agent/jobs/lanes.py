"""Who may work at the same time: a few per lane, and one at a time per container and per checkpoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from enum import StrEnum
from typing import Final
from weakref import WeakValueDictionary

from agent.formats.jobs import CheckpointId, Job, JobKind

_NODE: Final = "node"


class Lane(StrEnum):
    """Work that competes for the same thing."""

    DUMP = "dump"  # the disk, while a container is still
    TRANSFER = "transfer"  # cores and network
    ANALYSIS = "analysis"  # one core; somebody waits for it, so not behind transfers
    LIGHT = "light"  # hardly anything; must not wait behind a transfer
    PREPARE = "prepare"  # may start the container runtime anew: no dump meanwhile


class Lanes:
    """Turns, in the order in which they were asked for."""

    def __init__(self, sizes: Mapping[Lane, int]) -> None:
        self._sizes = dict(sizes)
        self._slots = {lane: asyncio.Semaphore(size) for lane, size in sizes.items()}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, lane: Lane, keys: Collection[str]) -> AsyncIterator[None]:
        """Hold every key and one slot of ``lane`` for the block; for ``PREPARE`` every slot of dumps.

        Keys first and in one order: who holds a slot waits for nobody, so nobody waits for ever.
        Those who prepare have one key, so that no two of them wait for each other's slots.
        """
        whole = lane is Lane.PREPARE
        slots = self._slots[Lane.DUMP if whole else lane]
        async with AsyncExitStack() as held:
            for key in sorted({*keys, *([_NODE] if whole else [])}):
                lock = self._locks.setdefault(key, asyncio.Lock())
                await held.enter_async_context(lock)
            for _ in range(self._sizes[Lane.DUMP] if whole else 1):
                await held.enter_async_context(slots)
            yield


def lane_of(kind: JobKind) -> Lane:
    """Where a job of ``kind`` queues."""
    if kind in {JobKind.CHECKPOINT, JobKind.CHECKPOINT_AND_PUSH}:
        return Lane.DUMP
    if kind in {JobKind.PUSH, JobKind.FETCH, JobKind.PREFETCH, JobKind.IMPORT}:
        return Lane.TRANSFER
    if kind is JobKind.ANALYZE:
        return Lane.ANALYSIS
    if kind is JobKind.PREPARE:
        return Lane.PREPARE
    return Lane.LIGHT


def keys_of(job: Job) -> frozenset[str]:
    """What ``job`` needs for itself: its containers, its checkpoints, the images that it fetches."""
    if job.analyze:  # reads only; one that is deleted meanwhile is told as gone
        return frozenset()
    keys = {f"checkpoint {checkpoint_id}" for checkpoint_id in checkpoints_of(job)}
    keys |= {f"image {fetch.image}" for fetch in job.fetches}
    if spec := job.checkpoint:
        pod = f"{spec.namespace}/{spec.pod_name}"
        keys |= {f"container {pod}/{target.container_name}" for target in spec.containers}
    return frozenset(keys)


def checkpoints_of(job: Job) -> frozenset[str]:
    """The checkpoints that ``job`` makes, reads or removes."""
    made = [target.checkpoint_id for target in job.checkpoint.containers] if job.checkpoint else []
    read = [push.checkpoint_id for push in job.pushes]
    if spec := job.analyze:
        read += [spec.checkpoint_id, CheckpointId(spec.other_checkpoint_id)]
    if job.import_:
        made.append(job.import_.checkpoint_id)
    return frozenset(filter(None, [*made, *read, *job.checkpoint_ids]))
