"""CRIU's images in the node's memory for a while: a tmpfs over their folder, until they are on the disk too.

Nobody else has to know: the folder of parts looks the same all the time. A mark in the data folder
(``in-memory/<id>``) says that its images are on a tmpfs, so that those which a reboot took are never offered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from agent import errors
from agent.checkpoint.shelf import Shelf
from agent.formats import layout, record
from agent.formats.jobs import CheckpointId
from agent.runtimes import tmpfs
from agent.runtimes.commands import Host

_SHARE: Final = (
    0.25  # of the node's memory: at most this much is used, at least this much stays available
)
_SLACK: Final = 64 << 20  # CRIU's other images, and pages that came since they were counted
EVERY_S: Final = 1.0
_PATIENCE_LOOKS: Final = 60  # so long a push reads from memory, undisturbed
_MOVE_S: Final = 3600.0
_MOVED: Final = "moved"
_log = logging.getLogger(__name__)


class Scratch:
    """Memory for dumps, at most ``limit_bytes`` of it and never more than a quarter of the node's; 0: none."""

    def __init__(self, host: Host, shelf: Shelf, limit_bytes: int) -> None:
        self._host, self._shelf, self._limit_bytes = host, shelf, limit_bytes
        self._promised: dict[str, int] = {}  # to dumps that may not have written it yet
        self._looks: dict[str, int] = {}
        self._lock = asyncio.Lock()

    async def take(self, wanted: dict[CheckpointId, int]) -> str:
        """Have memory at the images' folders of all ``wanted`` checkpoints (bytes each), or of none.

        Call ``settled`` for each when its dump has ended, however it did.

        Returns:
            Why it is none; empty: it is memory, or nobody wished for that.
        """
        if not self._limit_bytes:
            return ""
        sizes = {one: size + _SLACK for one, size in wanted.items()}
        async with self._lock:
            if short := await asyncio.to_thread(self._short_of, sum(sizes.values())):
                return short
            for checkpoint_id, size in sizes.items():
                self._shelf.mark(checkpoint_id).write_text("")
                if short := await tmpfs.mount(self._host, self._images(checkpoint_id), size):
                    for one in sizes:
                        self.leave(one)
                    return short
                self._promised[checkpoint_id] = size
        return ""

    def _short_of(self, needed: int) -> str:
        total, available = tmpfs.memory(self._host)
        floor = int(total * _SHARE)
        unwritten = sum(self._promised.values())
        used = unwritten + sum(
            self._used(one) for one in self._shelf.marked() if one not in self._promised
        )
        if used + needed > min(self._limit_bytes, floor):
            most = min(self._limit_bytes, floor)
            return f"{_mib(needed)} MiB are needed, {_mib(max(most - used, 0))} MiB may be used"
        if available - unwritten - needed < floor:
            return (
                f"{_mib(needed)} MiB are needed and {_mib(floor)} MiB must stay; {_mib(available)} MiB "
                "are available on the node"
            )
        room = tmpfs.group_room(self._host)
        if room is not None and room - unwritten < needed:
            return f"{_mib(needed)} MiB are needed, the dump's cgroup has room for {_mib(room)} MiB"
        return ""

    def settled(self, checkpoint_id: str) -> None:
        """A dump has ended: what it wrote shows in the node's memory from now on."""
        self._promised.pop(checkpoint_id, None)

    def leave(self, checkpoint_id: CheckpointId) -> None:
        """Let a checkpoint's memory go, and all that is in it. Blocks."""
        self.settled(checkpoint_id)
        self._shelf.leave_memory(checkpoint_id)

    def forget_lost(self) -> tuple[str, ...]:
        """Remove finished checkpoints whose memory is gone with the node's last run; their ids. Blocks.

        For the start, before anybody asks for one.
        """
        self._shelf.empty_trash()
        lost = []
        for checkpoint_id in self._shelf.marked():
            if tmpfs.is_mounted(self._host, self._images(checkpoint_id)):
                continue
            mark = self._shelf.mark(checkpoint_id)
            if mark.read_text() == _MOVED or not self._shelf.place(checkpoint_id).exists():
                mark.unlink()
            elif self._is_whole(checkpoint_id):
                _log.warning("checkpoint %s was in memory and is lost; removed", checkpoint_id)
                self._shelf.delete(checkpoint_id)
                lost.append(checkpoint_id)
        return tuple(lost)

    async def watch(self, busy: Callable[[], frozenset[str]]) -> None:
        """Bring to the disk what is in memory, for ever; what is ``busy`` being read as late as may be."""
        while True:
            try:
                await self.look(busy())
            except (errors.SnapError, OSError) as cause:
                _log.error("checkpoints stay in memory for now: %s", cause)
            await asyncio.sleep(EVERY_S)

    async def look(self, busy: Collection[str]) -> None:
        """Move every finished checkpoint that is in memory and may be.

        Raises:
            CommandFailed, Retryable: one could not be moved; it is in memory as before.
        """
        for checkpoint_id in await asyncio.to_thread(self._shelf.marked):
            if not self._shelf.place(checkpoint_id).exists():  # deleted while it was moved
                self._shelf.mark(checkpoint_id).unlink(missing_ok=True)
            if checkpoint_id in self._promised or not self._is_whole(checkpoint_id):
                continue
            looks = self._looks[checkpoint_id] = self._looks.get(checkpoint_id, 0) + 1
            if checkpoint_id in busy and looks < _PATIENCE_LOOKS and not self._is_tight():
                continue
            await self._move(checkpoint_id)
            self._looks.pop(checkpoint_id, None)

    def _is_tight(self) -> bool:
        total, available = tmpfs.memory(self._host)
        return available < total * _SHARE

    async def _move(self, checkpoint_id: CheckpointId) -> None:
        images, mark = self._images(checkpoint_id), self._shelf.mark(checkpoint_id)
        if not tmpfs.is_mounted(self._host, images):  # the script found that it must not use it
            mark.unlink(missing_ok=True)
            return
        try:
            if mark.read_text() != _MOVED:
                await tmpfs.copy_below(self._host, images, _MOVE_S)
                partial = mark.with_name(f".{mark.name}")  # no id, so nobody takes it for one
                partial.write_text(_MOVED)
                partial.replace(mark)
        except (FileNotFoundError, errors.CommandFailed):
            if mark.exists():
                raise
            return  # deleted meanwhile
        await asyncio.to_thread(self._shelf.leave_memory, checkpoint_id)

    def _used(self, checkpoint_id: CheckpointId) -> int:
        folder: Path = self._shelf.place(checkpoint_id) / layout.CHECKPOINT_DIR
        try:
            return sum(path.stat().st_size for path in folder.iterdir())
        except OSError:
            return 0

    def _is_whole(self, checkpoint_id: CheckpointId) -> bool:
        try:
            return record.read(self._shelf.place(checkpoint_id)).complete
        except (OSError, ValueError):
            return False

    def _images(self, checkpoint_id: CheckpointId) -> str:
        return f"{self._shelf.folder}/{checkpoint_id}/{layout.CHECKPOINT_DIR}"


def _mib(size: int) -> int:
    return -(-size >> 20)
