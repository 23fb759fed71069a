"""Images with flat memory, beside those whose memory is a chain; made when somebody asks for one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

from agent.errors import Refused, SnapError
from agent.image import flattening, folders

_log: Final = logging.getLogger(__name__)
_SUFFIX: Final = ".flat"

# room for so many bytes, and a place that becomes the folder after the block
Making = Callable[[Path, int], AbstractAsyncContextManager[Path]]


class Flats:
    """The flat ones on this node, each as ``<image's folder>.flat``. One event loop; ``open`` before use.

    They are not brought to the disk: after a power cut they are made again.
    """

    def __init__(self) -> None:
        self._sizes: dict[Path, int] = {}
        self._tasks: dict[Path, asyncio.Task[Path]] = {}

    def open(self, found: Iterable[Path], seen: set[tuple[int, int]]) -> None:
        """Know those of the whole folders ``found`` that are flat ones of others there. Blocking."""
        there = set(found)
        for folder in there:
            if folder.suffix != _SUFFIX:
                continue
            if folder.with_suffix("") in there:
                self._sizes[folder] = folders.size(folder, seen)
            else:
                folders.delete(folder)

    @property
    def size(self) -> int:
        """Of all of them, without what they share with their images, in bytes."""
        return sum(self._sizes.values())

    @property
    def under_way(self) -> Collection[asyncio.Task[Path]]:
        """What is being made."""
        return tuple(self._tasks.values())

    async def get(self, image: Path, making: Making) -> Path:
        """The flat one of the image in ``image``, which is held meanwhile; itself, if it is flat.

        Calls for one image share the work, which goes on when they are cancelled.

        Raises:
            Refused: its memory does not hold together, or there is no room.
            Broken: the disk failed.
        """
        if not await asyncio.to_thread(flattening.is_chain, image):
            return image
        folder = _flat(image)
        if folder in self._sizes and await asyncio.to_thread(folder.is_dir):
            return folder
        task = self._tasks.get(folder)
        if task is None:
            task = asyncio.create_task(self._make(image, making), name=f"flatten {image.name}")
            self._tasks[folder] = task
            task.add_done_callback(lambda done: self._ended(folder, done))
        return await asyncio.shield(task)

    def remove(self, image: Path) -> None:
        """Remove that of the image in ``image``, if there is one. Blocking."""
        folder = _flat(image)
        self._sizes.pop(folder, None)
        folders.delete(folder)

    async def _make(self, image: Path, making: Making) -> Path:
        folder = _flat(image)
        try:
            size = await asyncio.to_thread(flattening.flat_bytes, image)
            async with making(folder, size) as partial:
                await asyncio.to_thread(flattening.beside, image, partial)
                size = await asyncio.to_thread(folders.own_bytes, partial)
        except ValueError as cause:
            raise Refused(f"The memory of {image.name} is damaged.", details=str(cause)) from cause
        self._sizes[folder] = size
        return folder

    def _ended(self, folder: Path, task: asyncio.Task[Path]) -> None:
        del self._tasks[folder]
        if not task.cancelled() and (failure := task.exception()) is not None:
            words = failure.message if isinstance(failure, SnapError) else repr(failure)
            _log.warning("making %s failed: %s", folder.name, words)


def _flat(image: Path) -> Path:
    return image.with_name(image.name + _SUFFIX)
