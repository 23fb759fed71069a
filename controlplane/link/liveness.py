"""Keeping what is known of nodes: stored now and then, and jobs flagged whose node is long away."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import Final, Protocol

from controlplane.link.fleet import Fleet
from controlplane.link.server import seen
from controlplane.link.session import LOST_S, SILENT_S
from controlplane.store import agents, clusters
from controlplane.store.database import Store

TICK_S: Final = 1.0  # how much later than its time a silent session ends at most
LOOK_TICKS: Final = 10
KEEP_TICKS: Final = 30  # what a restart forgets of a node's status is at most so many seconds old


class Jobs(Protocol):
    """The job table (``jobs.JobService``)."""

    async def busy_nodes(self) -> Sequence[tuple[str, str]]: ...

    async def mark_lost(self, nodes: Sequence[tuple[str, str]]) -> None: ...


class Liveness:
    """Looks after the fleet for as long as ``run`` runs."""

    def __init__(self, store: Store, fleet: Fleet, jobs: Jobs) -> None:
        self._store = store
        self._fleet = fleet
        self._jobs = jobs

    async def run(self) -> None:
        """Look again and again until cancelled."""
        for tick in itertools.count(1):
            await asyncio.sleep(TICK_S)
            self.end_silent()
            await self.keep(tick)
            if tick % LOOK_TICKS == 0:
                await self.flag_lost()
                await self.send_away()

    def end_silent(self) -> None:
        """End the sessions that nothing was heard of for too long: one look at all, no timer for each."""
        before = time.monotonic() - SILENT_S
        for session in [s for s in self._fleet.every_session() if s.heard_at <= before]:
            session.close()

    async def flag_lost(self) -> None:
        """Flag the open jobs of nodes that have been away for minutes."""
        nodes = await self._jobs.busy_nodes()
        lost = [node for node in nodes if self._fleet.away_s(*node) > LOST_S]
        if lost:
            await self._jobs.mark_lost(lost)

    async def send_away(self) -> None:
        """End the sessions of clusters that were deleted."""
        known = {cluster.name for cluster in await self._store.read(clusters.everything)}
        for session in self._fleet.sessions():
            if session.cluster not in known:
                session.close()

    async def keep(self, tick: int) -> None:
        """Store how some of the connected agents were last seen, by turns: no write is a long one."""
        some = self._fleet.every_session()[tick % KEEP_TICKS :: KEEP_TICKS]
        rows = [seen(session) for session in some if session.is_ready]
        if rows:
            await self._store.write(lambda db: agents.put(db, *rows))
