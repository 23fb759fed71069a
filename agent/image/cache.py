"""The node's cache of fetched checkpoint images.

``<root>/<hex>/`` is one image's folder of parts, by its manifest's digest: whole, checked, its memory the chain
that the image says, the pages files of which are links to ``<root>/windows/`` (``windows``). Beside it,
``<root>/<hex>.flat/`` is the same with flat memory, for those who can't read a chain; made when it is asked
for. How folders come and go: ``folders``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import NotFound, SnapError
from agent.formats.digest import Digest
from agent.formats.jobs import Progress, RegistryAccess, Report
from agent.image import fetch, folders, room
from agent.image.backoff import Backoff
from agent.image.fetch import ImageFetch
from agent.image.flats import Flats
from agent.image.reference import ImageReference
from agent.image.registry import Registry
from agent.image.windows import Windows
from agent.runtimes import commands

_log: Final = logging.getLogger(__name__)
_HURRIED: Final = Backoff(tries=2, first_s=0.5)
_LAYERS_AT_ONCE: Final = 4  # over all fetches; their buffers stay below 20 MiB
_SWEPT_WITHIN_S: Final = 60.0
_HEX: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """How much the cache may hold.

    Attributes:
        size_bytes: of all images together, what they share counted once; the one that was used
            longest ago goes first.
        free_floor_bytes: stays free on the disk, whatever else fills it.
    """

    size_bytes: int = 20 << 30
    free_floor_bytes: int = 1 << 30


@dataclass(slots=True)
class _Transfer:
    """A fetch that is under way, and who wants to hear of it."""

    task: asyncio.Task[Path]
    reports: list[Report]
    waiting: int = 0
    goes_on: bool = False  # although nobody waits


class Cache:
    """Checkpoint images on this node. One event loop; ``open`` before use, ``close`` after."""

    def __init__(
        self,
        root: Path,
        limits: CacheLimits,
        *,
        backoff: Backoff | None = None,
        allowed_realms: Iterable[str] = (),
    ) -> None:
        self._root = root
        self._limits = limits
        self._backoff = backoff or Backoff()
        self._allowed_realms = tuple(allowed_realms)
        self._windows = Windows(root / "windows")
        self._flats = Flats()
        self._transfers: dict[Digest, _Transfer] = {}
        self._held: Counter[Digest] = Counter()
        self._sizes: dict[Digest, int] = {}  # without what is in windows
        self._reserved: dict[str, int] = {}
        self._fetching: list[ImageFetch] = []
        self._room = asyncio.Lock()
        self._slots = asyncio.Semaphore(_LAYERS_AT_ONCE)
        self._syncing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Find what is there, and sweep what an agent that died left half-done."""
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        found = {path.name: path for path in folders.sweep(self._root)}
        seen: set[tuple[int, int]] = set()
        self._windows.open(seen)
        for name, path in found.items():
            if _HEX.fullmatch(name):
                self._sizes[Digest(f"sha256:{name}")] = folders.size(path, seen)
        self._flats.open(found.values(), seen)

    async def close(self) -> None:
        """Stop what is under way."""
        tasks = [*(one.task for one in self._transfers.values()), *self._flats.under_way]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._syncing, return_exceptions=True)

    @property
    def size_bytes(self) -> int:
        """Of all images, what they share counted once."""
        return sum(self._sizes.values()) + self._flats.size + self._windows.size

    def find(self, wanted: Digest) -> Path | None:
        """The parts of an image that is here; it counts as used now."""
        if wanted not in self._sizes:
            return None
        folder = self._folder(wanted)
        try:
            os.utime(folder)
        except FileNotFoundError:  # somebody removed it by hand
            self._sizes.pop(wanted, None)
            return None
        return folder

    @contextmanager
    def hold(self, wanted: Digest) -> Iterator[Path]:
        """Keep an image that is here from being evicted during the block.

        Raises:
            NotFound: it is not here.
        """
        folder = self.find(wanted)
        if folder is None:
            raise NotFound(f"The image {wanted} is not in this node's cache.")
        self._held[wanted] += 1
        try:
            yield folder
        finally:
            self._held[wanted] -= 1

    async def fetch(
        self,
        image: str,
        access: RegistryAccess | None,
        report: Report,
        *,
        goes_on: bool = True,
        hurried: bool = False,
    ) -> Path:
        """The folder with the parts of ``image`` (``<host>/<repository>@sha256:…``), all checked.

        Its memory may be a chain of folders (``flat``: never).

        At once when it is here. Calls for one digest share one transfer. Hold it (``hold``) before
        awaiting anything else: a folder that nobody holds may be evicted.

        Args:
            access: how to reach the registry; None: anonymously.
            goes_on: whether the transfer outlives this call when it is cancelled.
            hurried: a pod waits: a registry that is not there at once is given up at once.

        Raises:
            NotFound: the registry does not have it.
            Refused: reference, login, or the image itself are wrong; or INSUFFICIENT_STORAGE.
            Retryable: the registry can't be reached.
        """
        reference = ImageReference.parse(image)
        folder = self.find(reference.digest)
        if folder is not None:
            return folder
        transfer = self._transfers.get(reference.digest)
        if transfer is None:
            backoff = _HURRIED if hurried else self._backoff
            transfer = self._begin(reference, access or RegistryAccess(reference.host), backoff)
        transfer.goes_on = transfer.goes_on or goes_on
        transfer.waiting += 1
        transfer.reports.append(report)
        try:
            return await asyncio.shield(transfer.task)
        finally:
            transfer.waiting -= 1
            transfer.reports.remove(report)
            if not transfer.waiting and not transfer.goes_on and not transfer.task.done():
                transfer.task.cancel()
                await asyncio.wait([transfer.task])

    async def flat(self, wanted: Digest) -> Path:
        """The same parts with flat memory, made beside unless they are there. Hold the image meanwhile.

        Calls for one image share the work, which goes on when they are cancelled.

        Raises:
            NotFound: the image is not here.
            Refused: its memory does not hold together, or there is no room (INSUFFICIENT_STORAGE).
            Broken: the disk failed.
        """
        with self.hold(wanted) as folder:
            return await self._flats.get(folder, self._made)

    @asynccontextmanager
    async def _made(self, folder: Path, size: int) -> AsyncIterator[Path]:
        """Room for ``size`` bytes, and a place that is ``folder`` after the block, or gone if it fails."""
        with room.disk_errors(self._root):
            async with self._room_for(folder.name, size):
                try:
                    async with folders.making(folder) as partial:
                        yield partial
                except BaseException:
                    await commands.finish(self._windows.forget_unused(), _SWEPT_WITHIN_S)
                    raise

    async def remove(self, wanted: Digest) -> bool:
        """Remove an image unless it is held; False: it was not here or is held."""
        if wanted not in self._sizes or self._held[wanted] > 0:
            return False
        del self._sizes[wanted]  # first, so that nobody finds it while it goes
        await asyncio.to_thread(self._flats.remove, self._folder(wanted))
        await asyncio.to_thread(folders.delete, self._folder(wanted))
        await self._windows.forget_unused()
        return True

    def _folder(self, wanted: Digest) -> Path:
        return self._root / wanted.removeprefix("sha256:")

    def _begin(
        self, reference: ImageReference, access: RegistryAccess, backoff: Backoff
    ) -> _Transfer:
        reports: list[Report] = []

        def tell(progress: Progress) -> None:
            for report in tuple(reports):
                report(progress)

        task = asyncio.create_task(
            self._transfer(reference, access, backoff, tell), name=f"fetch {reference}"
        )
        transfer = self._transfers[reference.digest] = _Transfer(task, reports)
        task.add_done_callback(lambda done: self._ended(reference, done))
        return transfer

    def _ended(self, reference: ImageReference, task: asyncio.Task[Path]) -> None:
        self._transfers.pop(reference.digest, None)
        if not task.cancelled() and (failure := task.exception()) is not None:
            words = failure.message if isinstance(failure, SnapError) else repr(failure)
            _log.warning("fetching %s failed: %s", reference, words)

    async def _transfer(
        self, reference: ImageReference, access: RegistryAccess, backoff: Backoff, report: Report
    ) -> Path:
        """``backoff``: how patiently the registry is asked for the image's description."""
        wanted = reference.digest
        folder = self._folder(wanted)
        async with Registry.connect(access, self._allowed_realms) as registry:
            image = await fetch.describe(registry, reference, backoff)
            async with self._made(folder, image.expected_bytes(self._windows)) as partial:
                parts = self._windows, self._slots, self._backoff
                fetching = ImageFetch(registry, image, *parts)
                with self._counted(fetching):
                    await fetching.into(partial, self._limits.free_floor_bytes, report)
                size = await asyncio.to_thread(folders.own_bytes, partial)
        self._sizes[wanted] = size
        fresh = [self._windows.folder(Digest(one.digest)) for one in image.windows]
        self._bring_to_disk([*fresh, folder])
        return folder

    @contextmanager
    def _counted(self, fetching: ImageFetch) -> Iterator[None]:
        """Windows that come during the block are no longer to come."""
        self._fetching.append(fetching)
        try:
            yield
        finally:
            self._fetching.remove(fetching)

    def _bring_to_disk(self, made: Sequence[Path]) -> None:
        """In the background: nothing waits for the disk."""

        def sync() -> None:
            for one in made:
                folders.sync(one)

        syncing = asyncio.create_task(asyncio.to_thread(sync), name=f"sync {made[-1]}")
        self._syncing.add(syncing)
        syncing.add_done_callback(self._syncing.discard)

    @asynccontextmanager
    async def _room_for(self, name: str, size: int) -> AsyncIterator[None]:
        """Reserve ``size`` bytes for the block, evicting what was used longest ago.

        Raises:
            Refused: what is held or under way leaves no room (INSUFFICIENT_STORAGE).
        """
        async with self._room:
            while lacking := self._lacking(size):
                victim = await asyncio.to_thread(self._oldest)
                if victim is None or not await self.remove(victim):
                    raise room.out_of_space(self._root, f"{lacking} bytes are missing")
                _log.info("evicted %s from the cache", victim)
            self._reserved[name] = size
        try:
            yield
        finally:
            self._reserved.pop(name, None)

    def _lacking(self, size: int) -> int:
        """How many bytes are missing for an image of ``size``; 0: there is room."""
        there = sum(one.window_bytes for one in self._fetching)
        coming = size + sum(self._reserved.values()) - there
        over = self.size_bytes + coming - self._limits.size_bytes
        short = coming + self._limits.free_floor_bytes - room.free_bytes(self._root)
        return max(0, over, short)

    def _oldest(self) -> Digest | None:
        """Of the images that nobody holds, the one that was used longest ago. Blocking."""
        used: dict[Digest, float] = {}
        for wanted in tuple(self._sizes):
            if self._held[wanted] <= 0:
                with suppress(FileNotFoundError):
                    used[wanted] = self._folder(wanted).stat().st_mtime
        return min(used, key=lambda one: used[one], default=None)
