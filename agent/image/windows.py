"""Memory layers as they were unpacked, each once, for all images of the node that have it.

``<root>/<hex of the blob's digest>/`` holds one layer's pages files, named by their place in the chain
(``<level>-pages-<N>.img``). Images hold them as hard links: a file that has no other name is used by none,
so who uses what is counted by the file system and can't be wrong after a crash.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from agent.formats.digest import Digest
from agent.image import folders

_HEX: Final = re.compile(r"[0-9a-f]{64}")
_FILE: Final = re.compile(r"([0-9]{1,2})-pages-([0-9]{1,10})\.img")

Place = tuple[int, int]  # level in the chain, N of pages-<N>.img


def file_name(place: Place) -> str:
    """What the file of ``place`` is called in its window's folder."""
    return f"{place[0]}-pages-{place[1]}.img"


class Windows:
    """The windows on this node. One event loop; ``open`` before use."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._sizes: dict[Digest, int] = {}
        self._locks: WeakValueDictionary[Digest, asyncio.Lock] = WeakValueDictionary()

    def open(self, seen: set[tuple[int, int]]) -> None:
        """Find what is there and used by an image; the files' identities go into ``seen``. Blocking."""
        for folder in folders.sweep(self._root):
            if not _HEX.fullmatch(folder.name) or _is_unused(folder):
                folders.delete(folder)
            else:
                self._sizes[Digest(f"sha256:{folder.name}")] = folders.size(folder, seen)

    @property
    def size(self) -> int:
        """Of all of them, in bytes."""
        return sum(self._sizes.values())

    def __contains__(self, wanted: Digest) -> bool:
        if wanted in self._sizes and not self.folder(wanted).is_dir():
            del self._sizes[wanted]  # somebody removed it by hand
        return wanted in self._sizes

    @asynccontextmanager
    async def alone(self, wanted: Digest) -> AsyncIterator[None]:
        """Nobody else brings, links or removes this window during the block."""
        lock = self._locks.get(wanted)
        if lock is None:
            lock = self._locks[wanted] = asyncio.Lock()
        async with lock:
            yield

    def folder(self, wanted: Digest) -> Path:
        """Where it is or will be."""
        return self._root / wanted.removeprefix("sha256:")

    def files(self, wanted: Digest) -> Mapping[Place, Path]:
        """The pages files of a window that is here. Blocking."""
        found = ((_FILE.fullmatch(path.name), path) for path in self.folder(wanted).iterdir())
        return {(int(match[1]), int(match[2])): path for match, path in found if match}

    def take(self, wanted: Digest) -> None:
        """Know a window that was just made whole, within ``alone``. Blocks for a moment."""
        self._sizes[wanted] = folders.size(self.folder(wanted), set())

    def size_of(self, wanted: Digest) -> int:
        """Of one that is here, in bytes."""
        return self._sizes.get(wanted, 0)

    async def forget_unused(self) -> None:
        """Remove the windows that are in no image any more, but for those that somebody is busy with."""
        for wanted in await asyncio.to_thread(self._unused, tuple(self._sizes)):
            lock = self._locks.get(wanted)
            if lock is not None and lock.locked():
                continue
            async with self.alone(wanted):  # at once; then nobody links it while it goes
                if await asyncio.to_thread(self._unused, (wanted,)):
                    self._sizes.pop(wanted, None)
                    await asyncio.to_thread(folders.delete, self.folder(wanted))

    def _unused(self, candidates: tuple[Digest, ...]) -> list[Digest]:
        return [one for one in candidates if _is_unused(self.folder(one))]


def _is_unused(folder: Path) -> bool:
    return all(path.lstat().st_nlink == 1 for path in folder.glob("*"))
