"""Registry passwords, unsealed at the moment they go out to a node, and nowhere else."""

from __future__ import annotations

import msgspec
from sqlite_utils import Database

from controlplane import errors
from controlplane.errors import NotFound
from controlplane.store import checkpoints, clusters, registries
from controlplane.store.database import Store
from controlplane.store.records import Job, RegistryAccess
from controlplane.store.registries import RegistryRow
from controlplane.store.secrets import Sealer


class Credentials:
    """How nodes reach registries."""

    def __init__(self, store: Store, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer

    async def of_job(self, job: Job) -> dict[str, RegistryAccess]:
        """Access for a job's pushes and fetches, by the registry names they have.

        Raises:
            NotFound: a registry config is gone.
        """
        names = {push.registry for push in job.spec.pushes}
        names |= {fetch.registry for fetch in job.spec.fetches}

        def read(db: Database) -> dict[str, RegistryAccess]:
            return {name: self._of_name(db, name, job.id) for name in names}

        return await self._store.read(read) if names else {}

    async def of_cluster(self, cluster: str) -> list[RegistryAccess]:
        """Access for pulling a cluster's images, one for each repository they lie in."""

        def read(db: Database) -> list[RegistryAccess]:
            found = []
            for name, path in checkpoints.repositories(db, cluster):
                row = registries.get(db, name)
                if row is not None and path.startswith(row.host + "/"):
                    found.append(self._access(db, row, path[len(row.host) + 1 :]))
            home = clusters.get(db, cluster)
            if home is not None and (row := registries.get(db, home.registry)) is not None:
                prefix = "/".join(part for part in (row.path, home.repo) if part)
                found.append(self._access(db, row, prefix))
            return found

        return await self._store.read(read)

    def _of_name(self, db: Database, name: str, job_id: str) -> RegistryAccess:
        if not name:  # the user gave address and password with the job
            sealed = self._sealer.get(db, job_secret(job_id))
            if sealed is not None:
                return msgspec.json.decode(sealed, type=RegistryAccess)
        row = registries.get(db, name)
        if row is None:
            raise NotFound(
                f"The registry config {name} does not exist any more.",
                code=errors.REGISTRY_NOT_FOUND,
            )
        return self._access(db, row, "")

    def _access(self, db: Database, row: RegistryRow, prefix: str) -> RegistryAccess:
        password = self._sealer.get(db, registries.secret_name(row.name)) if row.username else None
        return registries.access(row, password, prefix)


def job_secret(job_id: str) -> str:
    """Under which name the access that came with a job is sealed."""
    return f"job/{job_id}"
