"""How many agents are let in at the same time: after a restart all of them come at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from controlplane.errors import Retryable

AT_ONCE: Final = 16  # more would not be faster: they share one writer and one core
WAIT_S: Final = 30.0  # below the 40 s that an agent gives its handshake


class Door:
    """Lets a few in at a time, in the order they came, so that everything else goes on meanwhile."""

    def __init__(self, at_once: int = AT_ONCE, wait_s: float = WAIT_S) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._wait_s = wait_s

    @asynccontextmanager
    async def passed(self) -> AsyncIterator[None]:
        """Hold a place for the block.

        Raises:
            Retryable: none was free in time; the agent comes back after its back-off.
        """
        try:
            async with asyncio.timeout(self._wait_s):
                await self._places.acquire()
        except TimeoutError as cause:
            raise Retryable("Too many agents join at once; this one may try again.") from cause
        try:
            yield
        finally:
            self._places.release()
