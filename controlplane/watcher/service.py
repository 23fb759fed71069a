"""Watchers as use cases: make, change, start, stop, remove; they come back after a restart as they were."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from sqlite_utils import Database

from controlplane import permissions
from controlplane.errors import WATCHER_NOT_FOUND, Conflict, NotFound, SnapError
from controlplane.identity import Actor
from controlplane.store import audit, clock
from controlplane.store import watchers as rows
from controlplane.store.database import Store
from controlplane.store.watchers import Decision, WatcherRow
from controlplane.supervision import Runs, Supervision
from controlplane.watcher import drafts
from controlplane.watcher.drafts import WatcherDraft
from controlplane.watcher.loops import Loops


class Directory(Protocol):
    """Which cluster is meant (``clusters.directory``)."""

    async def resolve(self, name: str = "", kube_api_address: str = "") -> str: ...


@dataclass(frozen=True, slots=True)
class Watcher:
    """A watcher as it is: ``status`` is running, stopped or error (``error`` says why).

    Attributes:
        is_alive: its cluster is really watched now.
        failing_since: RFC 3339; empty unless status is error.
    """

    row: WatcherRow
    status: str
    is_alive: bool
    error: str
    failing_since: str = ""


class Watchers:
    """The watchers. Keep ``run`` running: it starts those that should run, again and again."""

    def __init__(self, store: Store, directory: Directory, loops: Loops) -> None:
        self._store = store
        self._directory = directory
        self._loops = loops
        self._supervision = Supervision(
            Runs("watcher", loops.is_started, loops.start, lambda row: loops.stop(row.name), _words)
        )

    async def run(self) -> None:
        """Start what should run and does not, once a minute, until cancelled."""
        await self._supervision.run(lambda: self._store.read(rows.everything))

    async def everything(self, cluster: str = "") -> list[Watcher]:
        """The watchers of a cluster or of all, by name."""
        return [self._seen(row) for row in await self._store.read(_of(cluster))]

    async def get(self, name: str) -> Watcher:
        """The watcher ``name``.

        Raises:
            NotFound: WATCHER_NOT_FOUND.
        """
        return self._seen(await self._store.read(lambda db: _found(db, name)))

    async def create(self, draft: WatcherDraft, actor: Actor) -> Watcher:
        """Make a watcher and start it; that it could not be started is told by its status.

        Raises:
            Conflict: the name is taken.
            NotFound: there is no such cluster.
            Refused, Denied: it is to watch what it can't, or what is not the actor's.
        """
        cluster = await self._directory.resolve(draft.cluster or "")
        row = drafts.drawn(WatcherRow(draft.name, cluster, owner=actor.username), draft)
        row = replace(row, wanted=True, started_at=clock.now())
        _require(actor, row)

        def insert(db: Database) -> WatcherRow:
            if rows.get(db, row.name) is not None:
                raise Conflict(f"SnapWatcher with name '{row.name}' already exists")
            audit.write(db, audit.deed(actor, "watcher created", f"watcher/{row.name}"))
            return rows.put(db, row)

        kept = await self._store.write(insert)
        await self._supervision.start(kept)
        return self._seen(kept)

    async def update(self, draft: WatcherDraft, actor: Actor) -> Watcher:
        """Change a watcher; one that runs goes on with the change.

        Raises:
            SnapError: as ``create``, and WATCHER_NOT_FOUND.
        """
        cluster = await self._directory.resolve(draft.cluster) if draft.cluster else None

        def change(db: Database) -> WatcherRow:
            old = _found(db, draft.name)
            _require(actor, old)
            new = drafts.drawn(replace(old, cluster=cluster or old.cluster), draft)
            _require(actor, new)
            audit.write(db, audit.deed(actor, "watcher changed", f"watcher/{new.name}"))
            return rows.put(db, new)

        kept = await self._store.write(change)
        if kept.wanted:
            await self._loops.stop(kept.name)
            await self._supervision.start(kept)
        return self._seen(kept)

    async def start(self, name: str, actor: Actor) -> Watcher:
        """Start a watcher, fine if it runs; it is tried again later if that fails.

        Raises:
            NotFound: WATCHER_NOT_FOUND.
            Failed: CLUSTER_CONNECTION_FAILED.
        """
        if self._loops.is_started(name):
            return await self._own(name, actor)
        row = await self._want(name, actor, wanted=True)
        failure = await self._supervision.start(row)
        if failure is not None:
            raise failure
        return self._seen(row)

    async def stop(self, name: str, actor: Actor) -> Watcher:
        """Stop a watcher, for good; fine if it is stopped.

        Raises:
            NotFound: WATCHER_NOT_FOUND.
        """
        before = await self._own(name, actor)
        if before.status == "stopped":
            return before
        row = await self._want(name, actor, wanted=False)
        await self._supervision.stop(row)
        return self._seen(row)

    async def delete(self, name: str, actor: Actor) -> None:
        """Stop a watcher and forget it and its decisions.

        Raises:
            NotFound: WATCHER_NOT_FOUND.
        """

        def remove(db: Database) -> WatcherRow:
            row = _found(db, name)
            _require(actor, row)
            rows.delete(db, name)
            audit.write(db, audit.deed(actor, "watcher deleted", f"watcher/{name}"))
            return row

        row = await self._store.write(remove)
        await self._supervision.stop(row)

    async def start_default(self, draft: WatcherDraft, actor: Actor) -> Watcher:
        """Start the cluster's default watcher, set as ``draft`` says; its name does not count.

        Raises:
            Conflict: it runs, set otherwise.
            SnapError: as ``start``.
        """
        cluster = await self._directory.resolve(draft.cluster or "")
        kept = await self._store.read(lambda db: rows.default_of(db, cluster))
        old = kept or WatcherRow(
            _default_name(cluster), cluster, is_default=True, owner=actor.username
        )
        new = drafts.drawn(old, replace(draft, name=old.name))
        _require(actor, new)
        if new != kept:
            if self._loops.is_started(new.name):
                raise Conflict(
                    f"The operator of cluster {cluster} runs, set otherwise; stop it first"
                )
            await self._store.write(lambda db: rows.put(db, new))
        return await self.start(new.name, actor)

    async def stop_default(self, cluster: str, actor: Actor) -> list[Watcher]:
        """Stop the default watcher of a cluster (empty: of all); those that were stopped."""
        name = await self._directory.resolve(cluster) if cluster else ""
        wanted = [w for w in await self._store.read(_of(name)) if w.is_default and w.wanted]
        return [await self.stop(row.name, actor) for row in wanted]

    async def decisions(self, name: str, limit: int, before: int | None) -> list[Decision]:
        """What a watcher decided, newest first.

        Raises:
            NotFound: WATCHER_NOT_FOUND.
        """

        def read(db: Database) -> list[Decision]:
            _found(db, name)
            return rows.decisions(db, name, limit, before)

        return await self._store.read(read)

    async def _own(self, name: str, actor: Actor) -> Watcher:
        """The watcher ``name``, which the actor may start and stop."""
        found = await self.get(name)
        _require(actor, found.row)
        return found

    async def _want(self, name: str, actor: Actor, *, wanted: bool) -> WatcherRow:
        def change(db: Database) -> WatcherRow:
            old = _found(db, name)
            _require(actor, old)
            deed = "watcher started" if wanted else "watcher stopped"
            audit.write(db, audit.deed(actor, deed, f"watcher/{name}"))
            started = clock.now() if wanted else old.started_at
            return rows.put(db, replace(old, wanted=wanted, started_at=started))

        return await self._store.write(change)

    def _seen(self, row: WatcherRow) -> Watcher:
        if self._loops.is_alive(row.name):
            return Watcher(row, "running", is_alive=True, error="")
        if not row.wanted:
            return Watcher(row, "stopped", is_alive=False, error="")
        found = self._loops.failure(row.name)
        if found is not None:
            words, since = found
            at = clock.stamp(datetime.fromtimestamp(since, UTC))
            return Watcher(row, "error", is_alive=False, error=words, failing_since=at)
        failing = self._supervision.failing(row.name)
        return Watcher(
            row, "error", is_alive=False, error=failing.words, failing_since=failing.since
        )


def _words(failure: SnapError) -> str:
    return f"{failure.message} ({failure.details})" if failure.details else failure.message


def _of(cluster: str) -> Callable[[Database], list[WatcherRow]]:
    return lambda db: rows.everything(db, cluster)


def _require(actor: Actor, row: WatcherRow) -> None:
    """Raise Denied if the actor may not act where the watcher would."""
    if row.scope == "cluster":
        permissions.require_all_namespaces(actor)
    if row.scope == "namespace":
        permissions.require_namespace(actor, row.namespace)


def _default_name(cluster: str) -> str:
    name = f"operator-{cluster}"
    return (
        name if len(name) <= 63 else name[:54] + "-" + hashlib.sha256(name.encode()).hexdigest()[:8]
    )


def _found(db: Database, name: str) -> WatcherRow:
    row = rows.get(db, name)
    if row is None:
        raise NotFound(f"SnapWatcher '{name}' not found", code=WATCHER_NOT_FOUND)
    return row
