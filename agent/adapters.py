"""What makes one room's plug fit another's socket; used by ``app.py`` alone, decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agent import errors
from agent.checkpoint import archive
from agent.checkpoint.shelf import Shelf
from agent.formats.digest import Digest
from agent.formats.jobs import (
    CheckpointId,
    PushResult,
    PushSpec,
    RegistryAccess,
    Report,
)
from agent.image.cache import Cache
from agent.image.push import Pusher
from agent.image.reference import ImageReference, Keychain
from agent.link.frames import GrantNews, PullAccessNews
from agent.restore.grants import Grants, SignedGrant
from agent.restore.laziness import Mode

log = logging.getLogger(__name__)
TOLD_WITHIN_S: Final = (
    5.0  # after the start; later the control plane is away, and nobody waits for it
)


class Trust:
    """What the control plane lets this node restore (kept on disk) and read (kept in memory)."""

    def __init__(self, kept: Grants, told_within_s: float = TOLD_WITHIN_S) -> None:
        self.kept = kept
        self._known: dict[tuple[str, str], RegistryAccess] = {}
        self._keychain = Keychain()
        self._told = asyncio.Event()
        self._told_by = time.monotonic() + told_within_s

    async def grants(self, news: GrantNews, key: bytes | None = None) -> None:
        """Take grants in; those that were not signed for this cluster are left out."""
        signed = [SignedGrant(one.payload, one.signature) for one in news.grants]

        def keep() -> int:
            if key:
                self.kept.set_key(key)
            return self.kept.put(signed, replace=news.replace)

        try:
            refused = await asyncio.to_thread(keep)
        except (OSError, ValueError) as cause:
            log.warning("grants can't be kept: %s", cause)
            return
        if refused:
            log.warning("%d grants are not signed for this cluster, left out", refused)

    async def pull_access(self, news: PullAccessNews) -> None:
        """Take registry credentials in."""
        if news.replace:
            self._known.clear()
        for one in news.registries:
            self._known[one.host, one.repository_prefix] = one
        self._keychain = Keychain(self._known.values())
        self._told.set()

    def access(self, image: str) -> RegistryAccess | None:
        """How to read ``image`` (``<host>/<repository>@sha256:…``); None: nothing special is known."""
        reference = ImageReference.parse(image)
        return self._keychain.access(reference.host, reference.repository)

    async def told(self, within_s: float) -> None:
        """Wait ``within_s`` at most for the first credentials; not at all once they should have come."""
        left_s = self._told_by - time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(min(within_s, left_s), 0)):
                await self._told.wait()

    def is_lazy(self, image: Digest) -> bool:
        """Whether pods that do not say how may get the memory of ``image`` lazily."""
        return bool(self.kept.modes(image) & {Mode.LAZY, Mode.AUTO})


@dataclass(frozen=True, slots=True)
class NotingPusher:
    """Pushes, and notes beside the checkpoint what it was pushed as: retention goes by it."""

    pusher: Pusher
    shelf: Shelf

    async def push(self, parts: Path, spec: PushSpec, report: Report) -> PushResult:
        """Push the checkpoint in ``parts``."""
        pushed = await self.pusher.push(parts, spec, report)
        name = f"{spec.registry.host}/{spec.repository}@{pushed.digest}"
        at = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            await asyncio.to_thread(self.shelf.note_pushed, spec.checkpoint_id, name, at)
        except (OSError, errors.NotFound) as cause:  # the image is there all the same
            log.warning("push of %s can't be noted: %s", spec.checkpoint_id, cause)
        return pushed


class _OpenArchive:
    """One checkpoint's archive; its bytes are read in threads."""

    def __init__(self, parts: Path, size_bytes: int) -> None:
        self._parts = parts
        self.size_bytes = size_bytes

    async def read(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """The bytes from ``offset``, ``length`` of them (0: to the end)."""
        pieces = archive.read(self._parts, offset, length or None)
        try:
            while piece := await asyncio.to_thread(next, pieces, b""):
                yield piece
        finally:
            if hasattr(pieces, "close"):
                pieces.close()


class ShelfArchives:
    """The checkpoints on the shelf, and images in the cache, as archives.

    ``busy`` are the checkpoints that are being read.
    """

    def __init__(self, shelf: Shelf, cache: Cache) -> None:
        self._shelf = shelf
        self._cache = cache
        self._readers: Counter[str] = Counter()

    @property
    def busy(self) -> frozenset[str]:
        """The checkpoints that are being read."""
        return frozenset(+self._readers)

    @asynccontextmanager
    async def open(self, checkpoint_id: CheckpointId) -> AsyncIterator[_OpenArchive]:
        """The archive of a checkpoint, kept from retention for the block.

        Raises:
            NotFound: it is not on this node.
        """
        parts = await asyncio.to_thread(self._shelf.parts, checkpoint_id)
        self._readers[checkpoint_id] += 1
        try:
            yield _OpenArchive(parts, await asyncio.to_thread(archive.size, parts))
        finally:
            self._readers[checkpoint_id] -= 1

    @asynccontextmanager
    async def open_image(self, image_digest: str) -> AsyncIterator[_OpenArchive]:
        """The archive of an image in the cache, kept from eviction for the block.

        Raises:
            NotFound: it is not here.
        """
        wanted = Digest(image_digest)
        with self._cache.hold(wanted):
            parts = await self._cache.flat(wanted)
            yield _OpenArchive(parts, await asyncio.to_thread(archive.size, parts))
