"""One client per cluster, kept open, and made anew when what is stored about the cluster changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from controlplane.kube import client
from controlplane.kube.access import Access
from controlplane.kube.client import KubeClient


class KubeClients:
    """The clients that are open.

    Args:
        access: how a cluster is reached now; raises for one that can't be.
    """

    def __init__(self, access: Callable[[str], Awaitable[Access]]) -> None:
        self._access = access
        self._open: dict[str, KubeClient] = {}
        self._lock = asyncio.Lock()

    async def of(self, cluster: str) -> KubeClient:
        """The client of ``cluster``; whoever keeps it asks again after a failure.

        Raises:
            SnapError: as ``access`` does; Failed when the credential can't be used.
        """
        access = await self._access(cluster)
        async with self._lock:
            kept = self._open.get(cluster)
            if kept is not None and kept.access == access:
                return kept
            made = await client.connect(access)
            self._open[cluster] = made
        if kept is not None:
            await (
                kept.close()
            )  # what runs on the old credential fails, and comes back on the new one
        return made

    async def close(self) -> None:
        """Close all; they can be opened again."""
        clients = list(self._open.values())
        self._open.clear()
        for one in clients:
            await one.close()
