"""Registry configs: make, list, change, remove, log in. Passwords go in and stay in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from sqlite_utils import Database

from controlplane.errors import REGISTRY_NOT_FOUND, Conflict, NotFound, Refused
from controlplane.registries import address
from controlplane.registries.client import RegistryClient
from controlplane.store import clusters, registries, secrets
from controlplane.store.database import Store
from controlplane.store.records import RegistryAccess
from controlplane.store.registries import RegistryRow
from controlplane.store.secrets import Sealer

PLACEHOLDER: Final = "********"


@dataclass(frozen=True, slots=True)
class RegistryDraft:
    """What a config is made of, or what it becomes; None keeps what is there.

    Attributes:
        password: empty for none; the placeholder keeps the stored one.
        repo: where images go when nothing else is said.
        ca_pem: whom to trust besides the system's authorities, PEM.
    """

    name: str
    url: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    verify_ssl: bool | None = None
    repo: str | None = None
    ca_pem: str | None = None


@dataclass(frozen=True, slots=True)
class Registry:
    """A config as users see it: without its password, but with whether there is one."""

    row: RegistryRow
    has_password: bool


class RegistryConfigs:
    """The registries that were set up."""

    def __init__(self, store: Store, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer

    async def everything(self) -> list[Registry]:
        """All configs, by name."""

        def read(db: Database) -> list[Registry]:
            sealed = set(secrets.names(db, registries.secret_name("")))
            return [
                Registry(row, registries.secret_name(row.name) in sealed)
                for row in registries.everything(db)
            ]

        return await self._store.read(read)

    async def create(self, draft: RegistryDraft) -> Registry:
        """Keep a new config.

        Raises:
            Conflict: the name is taken.
            Refused: the url is none.
        """
        if not draft.url:
            raise Refused("Field `url` is required.")
        if draft.password == PLACEHOLDER:
            raise Refused("Field `password` is the placeholder for a password, not one.")

        def insert(db: Database) -> Registry:
            if registries.get(db, draft.name) is not None:
                raise Conflict(f"There is a registry config {draft.name} already.")
            return self._put(db, _drawn(RegistryRow(draft.name, "", ""), draft), draft.password)

        return await self._store.write(insert)

    async def update(self, draft: RegistryDraft) -> Registry:
        """Change a config; what is None stays.

        A stored password goes with its address: another ``url`` or ``verify_ssl`` needs it again.

        Raises:
            NotFound: there is no such config.
            Conflict: the password must be given again.
        """

        def change(db: Database) -> Registry:
            old = _found(db, draft.name)
            new = _drawn(old, draft)
            kept = draft.password in (None, PLACEHOLDER)
            stored = self._sealer.get(db, registries.secret_name(draft.name)) is not None
            if kept and stored and _elsewhere(old, new):
                raise Conflict(
                    "Field `password` is required again when `url`, `verify_ssl` or `ca_pem` "
                    "change: a stored password is not sent to another address."
                )
            return self._put(db, new, None if kept else draft.password)

        return await self._store.write(change)

    async def delete(self, name: str) -> None:
        """Remove a config and its password.

        Raises:
            NotFound: there is no such config.
            Conflict: clusters send their images there.
        """

        def remove(db: Database) -> None:
            _found(db, name)
            if users := clusters.using_registry(db, name):
                raise Conflict(
                    f"The registry config {name} is used by the clusters {', '.join(users)}; "
                    "give them another one first."
                )
            registries.delete(db, name)
            secrets.delete(db, registries.secret_name(name))

        await self._store.write(remove)

    async def login(self, name: str) -> str:
        """Prove that a config works; returns the registry's host.

        Raises:
            NotFound: there is no such config.
            Failed: wrong credentials, not reached, or a certificate that is not trusted.
        """
        access = await self._store.read(lambda db: self.access(db, name))
        await RegistryClient(access).login()
        return access.host

    async def delete_manifest(self, name: str, repository: str, digest: str) -> None:
        """Delete a manifest from ``repository`` (without the host); one that is gone is no error.

        Raises:
            NotFound: there is no such config.
            Failed: the registry can't be reached or refuses.
        """
        access = await self._store.read(lambda db: self.access(db, name))
        await RegistryClient(access).delete_manifest(repository, digest)

    def find(self, db: Database, name: str) -> RegistryRow | None:
        """The config ``name``, within a query of the caller's."""
        return registries.get(db, name)

    def of_cluster(self, db: Database, cluster: str) -> tuple[RegistryRow, str] | None:
        """Where the cluster's images go: a config and a repository."""
        found = clusters.get(db, cluster)
        row = registries.get(db, found.registry) if found and found.registry else None
        return None if found is None or row is None else (row, found.repo)

    def names(self, db: Database) -> list[str]:
        """Names of all configs, within a query of the caller's."""
        return [row.name for row in registries.everything(db)]

    def access(self, db: Database, name: str) -> RegistryAccess:
        """How to reach the registry, its password unsealed; for one call, never stored.

        Raises:
            NotFound: there is no such config.
        """
        row = _found(db, name)
        password = self._sealer.get(db, registries.secret_name(name))
        return registries.access(row, password, row.path)

    def _put(self, db: Database, row: RegistryRow, password: str | None) -> Registry:
        """Store the row, and the password unless it is None; an empty one is forgotten."""
        name = registries.secret_name(row.name)
        if password:
            self._sealer.put(db, name, password.encode())
        elif password is not None:
            secrets.delete(db, name)
        return Registry(registries.put(db, row), self._sealer.get(db, name) is not None)


def _found(db: Database, name: str) -> RegistryRow:
    row = registries.get(db, name)
    if row is None:
        raise NotFound(f"There is no registry config {name}.", code=REGISTRY_NOT_FOUND)
    return row


def _drawn(old: RegistryRow, draft: RegistryDraft) -> RegistryRow:
    """The row that ``draft`` makes of ``old``."""
    new = old
    if draft.url is not None:
        parsed = address.parse(draft.url)
        new = replace(
            new,
            url=draft.url.strip(),
            host=parsed.host,
            path=parsed.path,
            plain_http=parsed.plain_http,
        )
    return replace(
        new,
        username=old.username if draft.username is None else draft.username,
        verify_ssl=old.verify_ssl if draft.verify_ssl is None else draft.verify_ssl,
        repo=old.repo if draft.repo is None else draft.repo,
        ca_pem=old.ca_pem if draft.ca_pem is None else draft.ca_pem,
    )


def _elsewhere(old: RegistryRow, new: RegistryRow) -> bool:
    """Whether a stored password would be shown to somebody else than it was stored for."""
    was = (old.host, old.plain_http, old.verify_ssl, old.ca_pem)
    return was != (new.host, new.plain_http, new.verify_ssl, new.ca_pem)
