"""Checkpoints of one process, made at will, pushed to a registry of their own and fetched again."""

from __future__ import annotations

import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from agent.formats import record
from agent.formats.digest import Digest
from agent.formats.jobs import CheckpointId, Progress, PushResult, PushSpec
from agent.formats.record import CheckpointRecord
from agent.image import manifest
from agent.image.bases import Bases
from agent.image.cache import Cache, CacheLimits
from agent.image.fetch import is_window
from agent.image.manifest import Descriptor
from agent.image.push import Pusher
from agent.image.registry import Registry
from tests.fakes import criu_dump
from tests.integration.own_registry import OwnRegistry

MIB = 1 << 20
SIZE = 70 * MIB  # three windows
REWRITTEN = frozenset(
    {"snap.json", "checkpoint/pagemap-1.img", "checkpoint/pagemap-2.img", "snap/kept"}
)


def silent(_: Progress) -> None:
    """Nobody listens."""


@dataclass
class Shelf:
    """A folder of checkpoints, pushed to a registry and fetched again."""

    root: Path
    registry: OwnRegistry

    @property
    def bases(self) -> Bases:
        return Bases(self.root / "bases")

    def parts(self, name: str) -> Path:
        return self.root / "checkpoints" / name

    def known(self, name: str) -> CheckpointRecord:
        return record.read(self.parts(name))

    def make(self, name: str, number: int, change: float = 0.0) -> Path:
        """Two processes; ``change`` of the larger one's pages differ from those of other calls."""
        parts = criu_dump.make_parts(self.parts(name), (SIZE, 3 * MIB), shared=MIB)
        rnd = random.Random(number)  # noqa: S311
        with (parts / "checkpoint/pages-1.img").open("r+b") as pages:
            for start in range(0, SIZE, 4096):
                if rnd.random() < change:
                    pages.seek(start)
                    pages.write(rnd.randbytes(64))
        at = f"2026-01-0{number}T00:00:00Z"
        self.note(name, checkpoint_id=name, created_at=at)
        return parts

    def note(self, name: str, **changes: object) -> None:
        record.write(self.parts(name), msgspec.structs.replace(self.known(name), **changes))

    async def push(
        self, name: str, repository: str = "r", pusher: Pusher | None = None
    ) -> PushResult:
        spec = PushSpec(CheckpointId(name), self.registry.access, repository, name)
        pusher = pusher or Pusher(bases=self.bases)
        pushed = await pusher.push(self.parts(name), spec, silent)
        image = f"{self.registry.host}/{repository}@{pushed.digest}"
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self.note(name, pushed=(*self.known(name).pushed, image), pushed_at=at)
        return pushed

    def image(self, name: str) -> str:
        """Where it was pushed to last."""
        return self.known(name).pushed[-1]

    def digest(self, name: str) -> Digest:
        """Of that image."""
        return Digest(self.image(name).partition("@")[2])

    @property
    def cache_root(self) -> Path:
        """Where the node's cache is."""
        return self.root / "cache"

    @asynccontextmanager
    async def cache(self) -> AsyncIterator[Cache]:
        """The node's cache, as an agent has it."""
        cache = Cache(self.cache_root, CacheLimits(free_floor_bytes=0))
        await cache.open()
        try:
            yield cache
        finally:
            await cache.close()

    async def is_right(self, name: str, cache: Cache) -> Path:
        """Assert that the image in ``cache`` is what was pushed; its flat parts."""
        flat = await cache.flat(self.digest(name))
        criu_dump.same_tree(self.parts(name), flat, without=REWRITTEN)
        return flat

    async def comes_back(self, name: str, folder: Path) -> Path:
        """Fetch the image and assert that it is what was pushed; ``folder``, where its parts are copied to."""
        async with self.cache() as cache:
            await cache.fetch(self.image(name), self.registry.access, silent)
            shutil.copytree(await self.is_right(name, cache), folder)
        return folder

    async def digests(self, pushed: PushResult) -> list[str]:
        """Of the layers."""
        return [layer.digest for layer in await self._layers(Digest(pushed.digest))]

    async def windows(self, name: str) -> set[str]:
        """The digests of the memory layers of the image that was pushed last."""
        layers = await self._layers(self.digest(name))
        return {layer.digest for layer in layers if is_window(layer)}

    async def _layers(self, image: Digest) -> tuple[Descriptor, ...]:
        async with Registry.connect(self.registry.access) as client:
            body, media_type = await client.manifest("r", image)
        return manifest.parse(body, media_type).layers
