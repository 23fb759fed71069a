"""Bringing images to a node before pods come: what jobs ask of the cache."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.errors import SnapError
from agent.formats import core_images, layout
from agent.formats.digest import Digest
from agent.formats.jobs import FetchSpec, RegistryAccess, Report
from agent.image.cache import Cache
from agent.image.reference import ImageReference

_log: Final = logging.getLogger(__name__)


class JobFetcher:
    """The cache as jobs need it: a cancelled job's transfer ends unless others wait for it."""

    def __init__(
        self,
        cache: Cache,
        access: Callable[[str], RegistryAccess | None],
        is_lazy: Callable[[Digest], bool],
    ) -> None:
        """Take how images are reached for which the job brings no credentials, and which are restored lazily."""
        self._cache, self._access, self._is_lazy = cache, access, is_lazy

    async def fetch(self, spec: FetchSpec, report: Report) -> Path:
        """Have the image of ``spec`` in the cache, every byte checked; flat, if that is how it will be read.

        Without room for that it is restored from what is there: not lazily, or more slowly, but restored.
        """
        access = spec.registry or self._access(spec.image)
        folder = await self._cache.fetch(spec.image, access, report, goes_on=False)
        wanted = ImageReference.parse(spec.image).digest
        if self._is_lazy(wanted) or await asyncio.to_thread(_is_sooner_flat, folder):
            try:
                return await self._cache.flat(wanted)
            except SnapError as cause:
                _log.warning("%s is here, but not flat: %s", spec.image, cause.message)
        return folder


def _is_sooner_flat(folder: Path) -> bool:
    try:
        memory = core_images.memory(folder / layout.CHECKPOINT_DIR)
    except (OSError, ValueError):  # a restore says what is wrong with it
        return False
    return core_images.is_sooner_flat(memory.pages_bytes, memory.address_spaces)
