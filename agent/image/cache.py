"""The node's cache of fetched checkpoint images: one folder of flat parts per manifest digest.

``<root>/<hex>/`` is whole and checked; ``<root>/<hex>.tmp-…`` is being fetched, or was when an agent died,
and is swept at the start. ``<root>/<hex>.unsynced`` names the boot in which the folder was made while it
is not yet on the disk for sure: after a power cut such a folder is not believed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import NotFound, SnapError
from agent.formats.digest import Digest
from agent.formats.jobs import FetchSpec, Progress, RegistryAccess, Report
from agent.image import fetch, unpack
from agent.image.backoff import Backoff
from agent.image.reference import ImageReference
from agent.image.registry import Registry

_log: Final = logging.getLogger(__name__)
_HURRIED: Final = Backoff(tries=2, first_s=0.5)
_LAYERS_AT_ONCE: Final = 4  # over all fetches; their buffers stay below 20 MiB
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """How much the cache may hold.

    Attributes:
        size_bytes: of all images together; the one that was used longest ago goes first.
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
        self._transfers: dict[Digest, _Transfer] = {}
        self._held: Counter[Digest] = Counter()
        self._sizes: dict[Digest, int] = {}
        self._reserved: dict[Digest, int] = {}
        self._room = asyncio.Lock()
        self._slots = asyncio.Semaphore(_LAYERS_AT_ONCE)
        self._syncing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Find what is there, and sweep what an agent that died left half-done."""
        self._sizes = await asyncio.to_thread(_sweep, self._root)

    async def close(self) -> None:
        """Stop what is under way."""
        tasks = [one.task for one in self._transfers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._syncing, return_exceptions=True)

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

    async def remove(self, wanted: Digest) -> bool:
        """Remove an image unless it is held; False: it was not here or is held."""
        if wanted not in self._sizes or self._held[wanted] > 0:
            return False
        del self._sizes[wanted]  # first, so that nobody finds it while it goes
        await asyncio.to_thread(_delete, self._folder(wanted))
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
        self._reserved.pop(reference.digest, None)
        if not task.cancelled() and (failure := task.exception()) is not None:
            words = failure.message if isinstance(failure, SnapError) else repr(failure)
            _log.warning("fetching %s failed: %s", reference, words)

    async def _transfer(
        self, reference: ImageReference, access: RegistryAccess, backoff: Backoff, report: Report
    ) -> Path:
        """``backoff``: how patiently the registry is asked for the image's description."""
        wanted = reference.digest
        folder = self._folder(wanted)
        partial = folder.with_name(f"{folder.name}.tmp-{secrets.token_hex(4)}")
        async with Registry.connect(access, self._allowed_realms) as registry:
            image = await fetch.describe(registry, reference, backoff)
            await self._make_room(wanted, image.expected_bytes)
            try:
                with unpack.disk_errors(self._root):
                    await asyncio.to_thread(partial.mkdir, 0o700)
                fetching = fetch.ImageFetch(registry, image, self._slots, self._backoff)
                await fetching.into(partial, self._limits.free_floor_bytes, report)
                with unpack.disk_errors(self._root):
                    size = await asyncio.to_thread(_settle, partial, folder)
            except BaseException:
                await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
                raise
        self._sizes[wanted] = size
        syncing = asyncio.create_task(asyncio.to_thread(_sync, folder), name=f"sync {wanted}")
        self._syncing.add(syncing)
        syncing.add_done_callback(self._syncing.discard)
        return folder

    async def _make_room(self, wanted: Digest, size: int) -> None:
        """Reserve ``size`` bytes, evicting what was used longest ago.

        Raises:
            Refused: what is held or under way leaves no room (INSUFFICIENT_STORAGE).
        """
        async with self._room:
            while lacking := self._lacking(size):
                victim = await asyncio.to_thread(self._oldest)
                if victim is None or not await self.remove(victim):
                    raise unpack.out_of_space(self._root, f"{lacking} bytes are missing")
                _log.info("evicted %s from the cache", victim)
            self._reserved[wanted] = size

    def _lacking(self, size: int) -> int:
        """How many bytes are missing for an image of ``size``; 0: there is room."""
        coming = size + sum(self._reserved.values())
        over = sum(self._sizes.values()) + coming - self._limits.size_bytes
        short = coming + self._limits.free_floor_bytes - unpack.free_bytes(self._root)
        return max(0, over, short)

    def _oldest(self) -> Digest | None:
        """Of the images that nobody holds, the one that was used longest ago. Blocking."""
        used: dict[Digest, float] = {}
        for wanted in tuple(self._sizes):
            if self._held[wanted] <= 0:
                with suppress(FileNotFoundError):
                    used[wanted] = self._folder(wanted).stat().st_mtime
        return min(used, key=lambda one: used[one], default=None)


class JobFetcher:
    """The cache as jobs need it: a cancelled job's transfer ends unless others wait for it."""

    def __init__(self, cache: Cache, access: Callable[[str], RegistryAccess | None]) -> None:
        """Take how images are reached for which the job brings no credentials."""
        self._cache, self._access = cache, access

    async def fetch(self, spec: FetchSpec, report: Report) -> Path:
        """Have the image of ``spec`` in the cache, every byte checked."""
        access = spec.registry or self._access(spec.image)
        return await self._cache.fetch(spec.image, access, report, goes_on=False)


def _sweep(root: Path) -> dict[Digest, int]:
    """Remove what is half-done or not surely on the disk; sizes of what is left."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    boot = _BOOT_ID.read_text()
    for path in list(root.iterdir()):
        if ".tmp-" in path.name:
            _delete(path)
        elif path.suffix == ".unsynced" and path.read_text() != boot:
            _delete(path.with_suffix(""))
    found = [path for path in root.iterdir() if _HEX.fullmatch(path.name) and path.is_dir()]
    return {Digest(f"sha256:{path.name}"): _size(path) for path in found}


def _settle(partial: Path, folder: Path) -> int:
    """Make a whole image findable; return its size in bytes."""
    folder.with_name(folder.name + ".unsynced").write_text(_BOOT_ID.read_text())
    size = _size(partial)
    partial.rename(folder)
    os.utime(folder, (time.time(), time.time()))
    return size


def _sync(folder: Path) -> None:
    """Bring an image to the disk, then believe it for ever. Evicted meanwhile: nothing to do."""
    try:
        for path in [*folder.rglob("*"), folder, folder.parent]:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        folder.with_name(folder.name + ".unsynced").unlink()
    except FileNotFoundError:
        pass
    except OSError as cause:
        _log.warning("%s is not surely on the disk: %s", folder, cause)


def _delete(folder: Path) -> None:
    """Remove an image so that a death in the middle leaves nothing that looks whole."""
    doomed = folder
    if ".tmp-" not in folder.name and folder.exists():
        doomed = folder.with_name(f"{folder.name}.tmp-{secrets.token_hex(4)}")
        folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
    with suppress(FileNotFoundError):
        folder.with_name(folder.name + ".unsynced").unlink()


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))
