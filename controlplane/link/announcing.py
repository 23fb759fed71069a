"""Telling a cluster's nodes what they may restore and how to pull it, as soon as it changes."""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.checkpoints.grants import Grants
from controlplane.link.credentials import Credentials
from controlplane.link.fleet import Fleet
from controlplane.link.frames import SignedGrant


class Announcer:
    """Tells connected nodes; those that are away hear it by their next Welcome."""

    def __init__(self, fleet: Fleet, grants: Grants, credentials: Credentials) -> None:
        self._fleet = fleet
        self._grants = grants
        self._credentials = credentials

    async def added(self, cluster: str, digests: Sequence[str]) -> None:
        """These digests may be restored now, or in more namespaces than before."""
        if not self._fleet.sessions(cluster):
            return
        wanted = set(digests)
        granted = await self._grants.of_cluster(cluster)
        fresh = [SignedGrant(g.payload, g.signature) for g in granted if g.digest in wanted]
        self._fleet.send_credentials(cluster, await self._credentials.of_cluster(cluster))
        self._fleet.send_grants(cluster, fresh, replace=False)

    async def removed(self, cluster: str) -> None:
        """Some grants of the cluster are gone: the list that is left replaces the nodes' own."""
        if not self._fleet.sessions(cluster):
            return
        granted = await self._grants.of_cluster(cluster)
        left = [SignedGrant(grant.payload, grant.signature) for grant in granted]
        self._fleet.send_grants(cluster, left, replace=True)

    async def registries_changed(self) -> None:
        """Passwords or addresses of registries changed: every node gets what it may pull with."""
        for cluster in {session.cluster for session in self._fleet.sessions()}:
            self._fleet.send_credentials(cluster, await self._credentials.of_cluster(cluster))

    async def refresh(self) -> None:
        """Give every connected node its grants again; those near their end are renewed by that."""
        for cluster in {session.cluster for session in self._fleet.sessions()}:
            await self.removed(cluster)
