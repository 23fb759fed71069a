"""What a node is told at its welcome: whose grants hold, and how it reaches registries."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import Final

from controlplane.checkpoints.grants import Grants
from controlplane.link.credentials import Credentials
from controlplane.link.frames import SignedGrant
from controlplane.store.database import Store
from controlplane.store.records import Job, RegistryAccess

Told = tuple[bytes, list[SignedGrant], list[RegistryAccess]]
_TABLES: Final = (
    *("grants", "checkpoints", "images"),
    *("registries", "clusters", "cluster_cache", "secrets"),
)
_GOOD_FOR_S: Final = 10.0  # grants near their end are renewed by asking for them


class Trust:
    """Makes it once for all nodes of a cluster that join while nothing of it changes.

    It holds passwords of registries, for seconds; they are in memory for every welcome anyway.
    """

    def __init__(self, store: Store, grants: Grants, credentials: Credentials) -> None:
        self._store = store
        self._grants = grants
        self._credentials = credentials
        self._made: dict[str, tuple[int, float, Told]] = {}
        self._making: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def of_cluster(self, cluster: str) -> Told:
        """Key of grants, grants, and access to registries of a cluster, as they are now."""
        async with self._making[cluster]:  # the first makes it, the others wait for that
            revision = self._store.revisions.of(*_TABLES)
            made = self._made.get(cluster)
            if made is not None and made[0] == revision and made[1] > time.monotonic():
                return made[2]
            told = await self._make(cluster)
            self._made[cluster] = revision, time.monotonic() + _GOOD_FOR_S, told
            return told

    async def of_job(self, job: Job) -> dict[str, RegistryAccess]:
        """Access for a job's pushes and fetches.

        Raises:
            NotFound: a registry config is gone.
        """
        return await self._credentials.of_job(job)

    async def _make(self, cluster: str) -> Told:
        granted = await self._grants.of_cluster(cluster)
        return (
            self._grants.public_key,
            [SignedGrant(grant.payload, grant.signature) for grant in granted],
            await self._credentials.of_cluster(cluster),
        )
