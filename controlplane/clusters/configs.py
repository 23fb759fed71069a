"""Cluster configs: make, list, change, remove. (``directory`` finds the one that a request means.)"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlsplit

import msgspec
from sqlite_utils import Database

from controlplane.clusters import kubeconfig
from controlplane.errors import (
    CLUSTER_NOT_FOUND,
    REGISTRY_NOT_FOUND,
    Conflict,
    NotFound,
    Refused,
)
from controlplane.store import agents, clusters, registries, reports, secrets
from controlplane.store.clusters import ClusterRow
from controlplane.store.database import Store
from controlplane.store.secrets import Sealer

PLACEHOLDER: Final = "********"
RESERVED: Final = frozenset({"summary", "report"})  # literal segments of /cluster/status/…
# the value in the reference's own example: a config that is completed later
_EXAMPLE_KUBECONFIG: Final = "base64-encoded-kubeconfig"
_KEEP: Final = (None, "", PLACEHOLDER)


@dataclass(frozen=True, slots=True)
class ClusterDraft:
    """What a config is made of, or what it becomes; None keeps what is there.

    Attributes:
        kubeconfig_content: base64.
        token: of a service account; the placeholder keeps the stored one.
        registry_name: registry config that the cluster's images go to; empty for none.
        repo: repository there.
    """

    name: str
    api_server_url: str | None = None
    auth_type: str | None = None
    kubeconfig_content: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    verify_ssl: bool | None = None
    registry_name: str | None = None
    repo: str | None = None


class Credential(msgspec.Struct, frozen=True):
    """What opens a cluster's API; sealed as JSON."""

    token: str = ""
    kubeconfig: str = ""

    def __repr__(self) -> str:
        return "Credential(********)"


@dataclass(frozen=True, slots=True)
class _Given:
    """What a draft brings along, read and checked."""

    credential: Credential | None
    auth_type: str | None
    server: str | None


class ClusterConfigs:
    """The clusters that were set up."""

    def __init__(self, store: Store, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer

    async def everything(self) -> list[ClusterRow]:
        """All configs, by name."""
        return await self._store.read(clusters.everything)

    def revision(self) -> int:
        """Another number after any config, or credential, changed."""
        return self._store.revisions.of("clusters", "secrets")

    async def get(self, name: str) -> ClusterRow:
        """The config ``name``.

        Raises:
            NotFound: there is none.
        """
        return await self._store.read(lambda db: _found(db, name))

    async def create(self, draft: ClusterDraft) -> ClusterRow:
        """Keep a new config.

        Raises:
            Conflict: the name is taken.
            Refused: the name is reserved, or its address or its kubeconfig can't be accepted.
            NotFound: there is no such registry config.
        """
        if draft.name in RESERVED:
            raise Refused(f"Field `name`: {draft.name} is a reserved name; choose another one.")
        given = await _read(draft)

        def insert(db: Database) -> ClusterRow:
            if clusters.get(db, draft.name) is not None:
                raise Conflict(f"There is a cluster {draft.name} already.")
            new = _drawn(db, ClusterRow(draft.name), draft, given)
            return self._put(db, new, given.credential)

        return await self._store.write(insert)

    async def update(self, draft: ClusterDraft) -> ClusterRow:
        """Change a config; what is None stays.

        A stored credential goes with its address: another address or ``verify_ssl`` needs it again.

        Raises:
            NotFound: there is no such cluster or registry config.
            Conflict: the credential must be given again.
        """
        given = await _read(draft)

        def change(db: Database) -> ClusterRow:
            old = _found(db, draft.name)
            new = _drawn(db, old, draft, given)
            stored = self._sealer.get(db, clusters.secret_name(draft.name)) is not None
            moved = (old.kube_api_url, old.verify_ssl) != (new.kube_api_url, new.verify_ssl)
            if stored and moved and given.credential is None:
                raise Conflict(
                    "Field `token` (or `kubeconfig_content`) is required again when the address "
                    "or `verify_ssl` changes: a stored credential is not sent elsewhere."
                )
            return self._put(db, new, given.credential)

        return await self._store.write(change)

    async def delete(self, name: str) -> None:
        """Remove a config, its credential, where its images go, and what admits its agents.

        Raises:
            NotFound: there is no such cluster.
        """

        def remove(db: Database) -> None:
            if not clusters.delete(db, name):
                raise _unknown(name)
            secrets.delete(db, clusters.secret_name(name))
            agents.revoke_tokens(db, name)
            reports.forget(db, name)

        await self._store.write(remove)

    async def credential(self, name: str) -> Credential | None:
        """What opens the cluster's API, unsealed; for one client, never logged. None if none is kept."""
        kept = await self._store.read(lambda db: self._sealer.get(db, clusters.secret_name(name)))
        return None if kept is None else msgspec.json.decode(kept, type=Credential)

    def _put(self, db: Database, row: ClusterRow, credential: Credential | None) -> ClusterRow:
        if credential is not None:
            kept = msgspec.json.encode(credential)
            self._sealer.put(db, clusters.secret_name(row.name), kept)
        return clusters.put(db, row)


async def _read(draft: ClusterDraft) -> _Given:
    """What the draft brings: credential, how it is used, and the address, all checked."""
    server = None if draft.api_server_url is None else _address(draft.api_server_url)
    if draft.kubeconfig_content not in (*_KEEP, _EXAMPLE_KUBECONFIG):
        config = await asyncio.to_thread(kubeconfig.read, draft.kubeconfig_content or "")
        found = _address(config.server)
        return _Given(
            Credential(kubeconfig=config.text), draft.auth_type or "kubeconfig", server or found
        )
    if draft.token is not None and draft.token.strip() and draft.token != PLACEHOLDER:
        return _Given(Credential(token=draft.token.strip()), draft.auth_type or "token", server)
    return _Given(None, draft.auth_type, server)


def _drawn(db: Database, old: ClusterRow, draft: ClusterDraft, given: _Given) -> ClusterRow:
    """The row that ``draft`` makes of ``old``."""
    registry = old.registry if draft.registry_name is None else draft.registry_name
    if registry and registries.get(db, registry) is None:
        raise NotFound(f"There is no registry config {registry}.", code=REGISTRY_NOT_FOUND)
    return replace(
        old,
        kube_api_url=old.kube_api_url if given.server is None else given.server,
        auth_type=given.auth_type or old.auth_type,
        verify_ssl=old.verify_ssl if draft.verify_ssl is None else draft.verify_ssl,
        registry=registry,
        repo=draft.repo or old.repo,
    )


def _address(url: str) -> str:
    """``url`` with its scheme, without a slash at the end; empty stays empty.

    Raises:
        Refused: it is no address of a server.
    """
    if not url.strip():
        return ""
    text = url.strip() if "://" in url else f"https://{url.strip()}"
    try:
        parts = urlsplit(text)
        fine = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        fine = False
    if not fine or parts.username or parts.password or parts.query or parts.fragment:
        raise Refused("Field `api_server_url` must be https://host[:port].")
    return text.rstrip("/")


def _found(db: Database, name: str) -> ClusterRow:
    row = clusters.get(db, name)
    if row is None:
        raise _unknown(name)
    return row


def _unknown(name: str) -> NotFound:
    return NotFound(f"There is no cluster {name}.", code=CLUSTER_NOT_FOUND)
