"""News of many nodes, stored together: what comes within a moment shares one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlite_utils import Database

from controlplane.jobs import intake
from controlplane.jobs.intake import Effects, Node, Stored
from controlplane.jobs.pacing import Pace
from controlplane.store.database import Store
from controlplane.store.records import Job, JobUpdate

GATHER_S: Final = 0.015  # news wait so long for others to share their transaction; nobody sees it

Spawn = Callable[[Coroutine[Any, Any, Any], str], "asyncio.Task[Any]"]


@dataclass(slots=True)
class _Parcel:
    """One node's news that wait, and who waits for them to be stored."""

    updates: list[JobUpdate] = field(default_factory=list)
    waiters: list[asyncio.Future[int]] = field(default_factory=list)


class Gathering:
    """Takes news and stores them; one node's that can't be stored hinder nobody else's.

    Args:
        told: called with each job that changed, once that is on disk.
        spawn: starts a named task that outlives the caller.

    Attributes:
        pace: how often agents are to send news, by how long these wait here.
    """

    def __init__(
        self, store: Store, effects: Effects, told: Callable[[Job], None], spawn: Spawn
    ) -> None:
        self._store = store
        self._effects = effects
        self._told = told
        self._spawn = spawn
        self.pace: Final = Pace()
        self._waiting: dict[Node, _Parcel] = {}
        self._waiting_since = 0.0
        self._storing = False

    async def take(self, node: Node, updates: Sequence[JobUpdate]) -> int:
        """Store a node's news; up to which sequence all are on disk when this returns.

        Raises:
            Exception: what storing this node's news raised.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._waiting_since = loop.time()
        parcel = self._waiting.get(node)
        if parcel is None:
            parcel = self._waiting[node] = _Parcel()
        parcel.updates.extend(updates)
        waiter: asyncio.Future[int] = loop.create_future()
        parcel.waiters.append(waiter)
        if not self._storing:
            self._storing = True
            self._spawn(self._store_all(), "store news")
        return await waiter

    async def _store_all(self) -> None:
        """Store what waits until nothing does; what came while others were stored has waited already."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                await asyncio.sleep(self._waiting_since + GATHER_S - loop.time())
                taken, self._waiting = self._waiting, {}
                since = self._waiting_since
                await self._store_together(taken)
                self.pace.took(loop.time() - since)
        finally:
            self._storing = False

    async def _store_together(self, parcels: dict[Node, _Parcel]) -> None:
        news = {node: parcel.updates for node, parcel in parcels.items()}

        def store(db: Database) -> list[Stored]:
            return intake.store(db, news, self._effects)

        together = asyncio.ensure_future(self._store.write(store))
        await asyncio.wait([together])
        if together.exception() is None:
            for parcel, stored in zip(parcels.values(), together.result(), strict=True):
                self._stored(parcel, stored)
        else:  # somebody's news can't be stored, and undid the others'
            await asyncio.gather(*(self._store_alone(n, parcel) for n, parcel in parcels.items()))

    async def _store_alone(self, node: Node, parcel: _Parcel) -> None:
        alone = asyncio.ensure_future(
            self._store.write(lambda db: intake.store(db, {node: parcel.updates}, self._effects))
        )
        await asyncio.wait([alone])
        failure = alone.exception()
        if failure is None:
            self._stored(parcel, *alone.result())
        else:
            for waiter in parcel.waiters:
                if not waiter.done():  # its session may be gone
                    waiter.set_exception(failure)
                    waiter.exception()  # or go before it hears of it, which is no fault

    def _stored(self, parcel: _Parcel, stored: Stored) -> None:
        for waiter in parcel.waiters:
            if not waiter.done():  # its session may be gone
                waiter.set_result(stored.up_to_sequence)
        for job in stored.changed:
            self._told(job)
