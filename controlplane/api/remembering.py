"""Answers kept as bytes for as long as what they are made of did not change.

Many clients ask for the same page of checkpoints again and again; it is read and encoded once per change.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Final

_LIMIT_BYTES: Final = 16 << 20


class Remembered:
    """Keeps the answers asked for last, 16 MiB of them at most.

    Those who ask for the same thing while it is being made wait for one making. The answers must not depend on
    who asks.
    """

    def __init__(self, limit_bytes: int = _LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._size_bytes = 0
        self._kept: OrderedDict[Hashable, tuple[int, bytes]] = OrderedDict()
        self._making: dict[tuple[Hashable, int], asyncio.Future[bytes]] = {}

    async def answer(
        self, key: Hashable, revision: int, make: Callable[[], Awaitable[bytes]]
    ) -> bytes:
        """The answer to ``key`` as of ``revision`` or later, made by ``make`` if need be."""
        found = self._kept.get(key)
        if found is not None and found[0] == revision:
            self._kept.move_to_end(key)
            return found[1]
        making = self._making.get((key, revision))
        if making is None:
            work = self._make(key, revision, make)
            making = self._making[key, revision] = asyncio.ensure_future(work)
        # whoever began it may hang up; the others still get it
        return await asyncio.shield(making)

    async def _make(
        self, key: Hashable, revision: int, make: Callable[[], Awaitable[bytes]]
    ) -> bytes:
        try:
            content = await make()
        finally:
            del self._making[key, revision]
        self._keep(key, revision, content)
        return content

    def _keep(self, key: Hashable, revision: int, content: bytes) -> None:
        older = self._kept.pop(key, None)
        self._size_bytes += len(content) - (len(older[1]) if older else 0)
        self._kept[key] = (revision, content)
        while self._size_bytes > self._limit_bytes and self._kept:
            _, (_, gone) = self._kept.popitem(last=False)
            self._size_bytes -= len(gone)
