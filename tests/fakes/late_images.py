"""A cache whose flat images are ready when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.formats.digest import Digest
from agent.formats.jobs import RegistryAccess, Report


@dataclass(frozen=True)
class LateImages:
    """``restore.ports.Fetcher`` and ``Credentials``; every image is there, ``ready`` makes it flat."""

    folder: Path
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    async def fetch(
        self, image: str, access: RegistryAccess | None, report: Report, *, hurried: bool = False
    ) -> Path:
        return self.folder

    @contextmanager
    def hold(self, wanted: Digest) -> Iterator[Path]:
        yield self.folder

    async def flat(self, wanted: Digest) -> Path:
        await self.ready.wait()
        return self.folder.with_suffix(".flat")

    def access(self, image: str) -> RegistryAccess | None:
        return None

    async def told(self, within_s: float) -> None:
        pass
