"""Hooks as use cases: make, start, stop, remove; they come back after a restart as they were."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Protocol

from sqlite_utils import Database

from controlplane import permissions
from controlplane.errors import HOOK_NOT_FOUND, Conflict, NotFound, Refused
from controlplane.hook.servers import Servers
from controlplane.identity import Actor
from controlplane.store import audit
from controlplane.store import hooks as rows
from controlplane.store.database import Store
from controlplane.store.hooks import HookRow
from controlplane.supervision import Runs, Supervision

RESERVED: Final = frozenset({"list"})  # literal segment of /snaphook/…


class Directory(Protocol):
    """Which cluster is meant (``clusters.directory``)."""

    async def resolve(self, name: str = "", kube_api_address: str = "") -> str: ...


@dataclass(frozen=True, slots=True)
class Hook:
    """A hook as it is; ``error`` says why one that should run does not, ``url`` where its cluster reaches it."""

    row: HookRow
    is_running: bool
    error: str
    url: str


class Hooks:
    """The hooks. Keep ``run`` running: it starts those that should run, again and again."""

    def __init__(self, store: Store, directory: Directory, servers: Servers) -> None:
        self._store = store
        self._directory = directory
        self._servers = servers
        self._supervision = Supervision(
            Runs(
                "hook",
                servers.is_running,
                servers.start,
                servers.stop,
                lambda failure: failure.message,
            )
        )

    async def run(self) -> None:
        """Start what should run and does not, once a minute, until cancelled."""
        await self._supervision.run(lambda: self._store.read(rows.everything))

    async def everything(self) -> list[Hook]:
        """All hooks, by name."""
        return [self._seen(row) for row in await self._store.read(rows.everything)]

    async def get(self, name: str) -> Hook:
        """The hook ``name``.

        Raises:
            NotFound: HOOK_NOT_FOUND.
        """
        return self._seen(await self._store.read(lambda db: _found(db, name)))

    async def create(self, row: HookRow, actor: Actor) -> Hook:
        """Make a hook; it is not started.

        Args:
            row: its cluster may be empty for the only one.

        Raises:
            Conflict: the name is taken.
            Refused: the name is reserved.
            NotFound: there is no such cluster.
            Denied: the actor's namespaces are limited; a hook sees them all.
        """
        if row.name in RESERVED:
            raise Refused(f"Field `name`: {row.name} is a reserved name; choose another one.")
        permissions.require_all_namespaces(actor)  # admission reviews come from all
        cluster = await self._directory.resolve(row.cluster)
        new = replace(row, cluster=cluster, owner=actor.username, wanted=False)

        def insert(db: Database) -> HookRow:
            if rows.get(db, new.name) is not None:
                raise Conflict(f"SnapHook with name '{new.name}' already exists")
            audit.write(db, audit.deed(actor, "hook created", f"hook/{new.name}"))
            return rows.put(db, new)

        return self._seen(await self._store.write(insert))

    async def start(self, name: str, actor: Actor) -> Hook:
        """Start a hook, fine if it runs; it is tried again later if that fails.

        Raises:
            NotFound: HOOK_NOT_FOUND.
            Failed: CLUSTER_CONNECTION_FAILED.
        """
        if self._servers.is_running(name):
            permissions.require_all_namespaces(actor)
            return await self.get(name)
        row = await self._want(name, actor, wanted=True)
        failure = await self._supervision.start(row)
        if failure is not None:
            raise failure
        return self._seen(row)

    async def stop(self, name: str, actor: Actor) -> Hook:
        """Stop a hook, for good; again: what its cluster could not be told then is told now.

        Raises:
            NotFound: HOOK_NOT_FOUND.
        """
        row = await self._want(name, actor, wanted=False)
        await self._supervision.stop(row)
        return self._seen(row)

    async def renew(self, name: str, actor: Actor) -> Hook:
        """Give a running hook a new certificate.

        Raises:
            NotFound: HOOK_NOT_FOUND.
            Conflict: it does not run, so it has none.
        """
        permissions.require_all_namespaces(actor)
        hook = await self.get(name)
        if not hook.is_running:
            raise Conflict(f"SnapHook '{name}' is not running, it has no certificate; start it.")
        await self._servers.renew(hook.row)
        return await self.get(name)

    async def probe(self, name: str) -> tuple[Hook, str]:
        """Have a hook's cluster call it: the hook, and why it is not called, empty if it is.

        Raises:
            NotFound: HOOK_NOT_FOUND.
            SnapError: CLUSTER_CONNECTION_FAILED.
        """
        hook = await self.get(name)
        return hook, await self._servers.probe(hook.row)

    async def delete(self, name: str, actor: Actor) -> None:
        """Stop a hook and forget it.

        Raises:
            NotFound: HOOK_NOT_FOUND.
        """
        permissions.require_all_namespaces(actor)

        def remove(db: Database) -> HookRow:
            row = _found(db, name)
            rows.delete(db, name)
            audit.write(db, audit.deed(actor, "hook deleted", f"hook/{name}"))
            return row

        row = await self._store.write(remove)
        await self._supervision.stop(row)

    async def _want(self, name: str, actor: Actor, *, wanted: bool) -> HookRow:
        permissions.require_all_namespaces(actor)

        def change(db: Database) -> HookRow:
            deed = "hook started" if wanted else "hook stopped"
            kept = rows.put(db, replace(_found(db, name), wanted=wanted))
            audit.write(db, audit.deed(actor, deed, f"hook/{name}"))
            return kept

        return await self._store.write(change)

    def _seen(self, row: HookRow) -> Hook:
        running = self._servers.is_running(row.name)
        failed = row.wanted and not running
        error = self._supervision.failing(row.name).words if failed else ""
        return Hook(row, running, error, self._servers.url(row))


def _found(db: Database, name: str) -> HookRow:
    row = rows.get(db, name)
    if row is None:
        raise NotFound(f"SnapHook '{name}' not found", code=HOOK_NOT_FOUND)
    return row
