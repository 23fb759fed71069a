"""Which checkpoints leave this node, decided from what is known about each; the sweep only acts."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from agent.checkpoint.shelf import Shelf
from agent.formats.jobs import CheckpointId
from agent.formats.record import CheckpointRecord
from agent.runtimes.commands import Host

FREE_FLOOR: Final = 0.10  # of the whole disk: a node that runs full evicts its pods


@dataclass(frozen=True, slots=True)
class Policy:
    """How long checkpoints stay.

    Attributes:
        pushed_h: hours after a push that parts stay, for restores on this node.
        unpushed_h: hours that a checkpoint that was never pushed stays.
        disk_share: of the whole disk, at most this much holds checkpoints.
        free_floor: of the whole disk, at least this much stays free.
        keep_last: of each workload, so many are never removed for their age.
    """

    pushed_h: float = 24.0
    unpushed_h: float = 7 * 24.0
    disk_share: float = 0.20
    free_floor: float = FREE_FLOOR
    keep_last: int = 3


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk that checkpoints are on, in bytes."""

    total_bytes: int
    free_bytes: int

    @classmethod
    def under(cls, host: Host, data_dir: str) -> Disk:
        """The one that holds checkpoints, which may be a disk of its own below ``data_dir``. Blocks.

        Raises:
            OSError: it can't be looked at.
        """
        place = host.path(f"{data_dir}/checkpoints")
        usage = shutil.disk_usage(place if place.is_dir() else host.path(data_dir))
        return cls(usage.total, usage.free)


@dataclass(frozen=True, slots=True)
class Held:
    """A checkpoint as retention sees it; ``busy`` while a job or a download uses it."""

    record: CheckpointRecord
    busy: bool = False

    @property
    def pushed_at(self) -> str:
        """When it was pushed last; empty: never."""
        return self.record.pushed_at


def expired(
    held: Sequence[Held], disk: Disk, now: datetime, policy: Policy
) -> tuple[CheckpointId, ...]:
    """Which of ``held`` go, in the order in which they should.

    Pinned ones, busy ones and bases of deltas stay. Age counts but for the last ones of a workload;
    when room is short, pushed ones go first (they can be fetched again), then the oldest.
    """
    bases = {item.record.parent for item in held if item.record.parent}
    free_to_go = [
        item
        for item in sorted(held, key=lambda item: item.record.created_at)
        if not (item.record.pinned or item.busy or item.record.checkpoint_id in bases)
    ]
    last = _last_of_each_workload(held, policy.keep_last)
    gone = [
        item
        for item in free_to_go
        if _is_old(item, now, policy) and (item.pushed_at or item.record.checkpoint_id not in last)
    ]
    rest = [item for item in free_to_go if item not in gone]
    gone += _for_room(held, gone, rest, disk, policy)
    return tuple(CheckpointId(item.record.checkpoint_id) for item in gone)


def _is_old(item: Held, now: datetime, policy: Policy) -> bool:
    since = item.pushed_at or item.record.created_at
    hours = policy.pushed_h if item.pushed_at else policy.unpushed_h
    try:
        moment = datetime.fromisoformat(since)
    except ValueError:  # an unreadable time is no reason to lose a checkpoint
        return False
    return now - moment.astimezone(UTC) > timedelta(hours=hours)


def _last_of_each_workload(held: Sequence[Held], count: int) -> set[str]:
    by_workload: dict[tuple[str, str, str], list[CheckpointRecord]] = defaultdict(list)
    for item in held:
        kept = item.record
        # pods of one workload share their image; their names differ
        by_workload[kept.namespace, kept.image_ref or kept.pod_name, kept.container_name].append(
            kept
        )
    last: set[str] = set()
    for records in by_workload.values():
        newest = sorted(records, key=lambda record: record.created_at, reverse=True)
        last.update(record.checkpoint_id for record in newest[:count])
    return last


def _for_room(
    held: Sequence[Held], gone: Sequence[Held], rest: list[Held], disk: Disk, policy: Policy
) -> list[Held]:
    freed = sum(item.record.size_bytes for item in gone)
    used = sum(item.record.size_bytes for item in held) - freed
    free = disk.free_bytes + freed
    more: list[Held] = []
    for item in sorted(rest, key=lambda item: (not item.pushed_at, item.record.created_at)):
        if used <= disk.total_bytes * policy.disk_share and (
            free >= disk.total_bytes * policy.free_floor
        ):
            break
        more.append(item)
        used -= item.record.size_bytes
        free += item.record.size_bytes
    return more


def sweep(
    shelf: Shelf,
    disk: Disk,
    policy: Policy,
    *,
    busy: frozenset[str] = frozenset(),
    leaving: Callable[[Path], None] = lambda _: None,
) -> tuple[CheckpointId, ...]:
    """Remove what has expired; returns what went. Blocks on the disk.

    Args:
        leaving: told of each folder of parts before it goes.
    """
    held = [Held(item, item.checkpoint_id in busy) for item in shelf.list()]
    gone = []
    for item in expired(held, disk, datetime.now(UTC), policy):
        leaving(shelf.place(item))
        if shelf.delete(item):
            gone.append(item)
    return tuple(gone)
