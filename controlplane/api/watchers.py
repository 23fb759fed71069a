"""``/operator/*``: watchers, which checkpoint pods when something happens to them."""

from __future__ import annotations

from typing import Final

from controlplane.api import watcher_shapes as shapes
from controlplane.api.calls import Call, Done
from controlplane.api.operated import shown_cluster
from controlplane.api.routing import Section
from controlplane.api.watcher_shapes import (
    DecisionPage,
    DecisionsWanted,
    OperatorStart,
    OperatorState,
    OperatorStatus,
    OperatorStop,
    WatcherAnswer,
    WatcherChange,
    WatcherCreate,
    WatcherList,
    WatchersOfCluster,
    WatchersStatus,
    WatcherWanted,
)
from controlplane.identity import Role
from controlplane.watcher.drafts import WatcherDraft
from controlplane.watcher.service import Watcher

SECTION: Final = Section("Watchers", "Checkpoint pods when something happens to them.")
_ERRORS: Final = ("CLUSTER_NOT_FOUND", "CONFLICT", "PERMISSION_DENIED")
_START_ERRORS: Final = (*_ERRORS, "WATCHER_NOT_FOUND", "CLUSTER_CONNECTION_FAILED")


@SECTION.route(
    "POST",
    "/operator/start",
    takes=OperatorStart,
    gives=OperatorState,
    needs=Role.OPERATOR,
    errors=_START_ERRORS,
)
async def start_operator(call: Call, wanted: OperatorStart) -> OperatorState:
    """Start a cluster's default watcher, with the credential that is stored of the cluster."""
    draft = WatcherDraft(
        "",
        cluster=wanted.cluster_name,
        scope=wanted.scope,
        namespace=wanted.namespace,
        auto_delete_pod=wanted.auto_delete_pod,
    )
    started = await call.services.watchers.start_default(draft, call.actor)
    return OperatorState(started.is_alive, started.row.cluster, started.error or None)


@SECTION.route(
    "POST",
    "/operator/stop",
    takes=OperatorStop,
    gives=OperatorState,
    needs=Role.OPERATOR,
    errors=_ERRORS,
)
async def stop_operator(call: Call, wanted: OperatorStop) -> OperatorState:
    """Stop a cluster's default watcher, or all of them."""
    stopped = await call.services.watchers.stop_default(wanted.cluster_name or "", call.actor)
    if not stopped:
        return OperatorState(False, None, "Operator is not running")
    return OperatorState(False, stopped[0].row.cluster, None)


@SECTION.route("GET", "/operator/status", gives=OperatorStatus)
async def operator_status(call: Call) -> OperatorStatus:
    """Whether any watcher runs, and all that should."""
    wanted = [w for w in await call.services.watchers.everything() if w.row.wanted]
    alive = [w for w in wanted if w.is_alive]
    first = next(iter(alive or wanted), None)
    return OperatorStatus(
        running=bool(alive),
        cluster_name=first.row.cluster if first else None,
        error=next((w.error for w in wanted if w.error), None),
        active_watchers=[shapes.active(w) for w in wanted],
    )


@SECTION.route(
    "POST",
    "/operator/snapwatcher",
    takes=WatcherCreate,
    gives=WatcherAnswer,
    needs=Role.OPERATOR,
    errors=_ERRORS,
)
async def create_watcher(call: Call, wanted: WatcherCreate) -> WatcherAnswer:
    """Make a watcher and start it.

    That it could not be started is told by ``status`` and ``error_message``; it is tried again.
    """
    draft = shapes.draft(wanted.name, wanted)
    return await _answer(call, await call.services.watchers.create(draft, call.actor))


@SECTION.route(
    "GET",
    "/operator/snapwatcher/{watcher_name}/status",
    "/operator/snapwatcher/{watcher_name}",
    takes=WatcherWanted,
    gives=WatcherAnswer,
    errors=("WATCHER_NOT_FOUND",),
)
async def get_watcher(call: Call, wanted: WatcherWanted) -> WatcherAnswer:
    """A watcher and whether it runs."""
    return await _answer(call, await call.services.watchers.get(wanted.watcher_name))


@SECTION.route(
    "PUT",
    "/operator/snapwatcher/{watcher_name}",
    takes=WatcherChange,
    gives=WatcherAnswer,
    needs=Role.OPERATOR,
    errors=_START_ERRORS,
)
async def update_watcher(call: Call, wanted: WatcherChange) -> WatcherAnswer:
    """Change a watcher; one that runs goes on with the change."""
    draft = shapes.draft(wanted.watcher_name, wanted)
    return await _answer(call, await call.services.watchers.update(draft, call.actor))


@SECTION.route(
    "POST",
    "/operator/snapwatcher/{watcher_name}/start",
    takes=WatcherWanted,
    gives=WatcherAnswer,
    needs=Role.OPERATOR,
    errors=_START_ERRORS,
)
async def start_watcher(call: Call, wanted: WatcherWanted) -> WatcherAnswer:
    """Start a watcher; if that fails it is tried again, until it is stopped."""
    watchers = call.services.watchers
    return await _answer(call, await watchers.start(wanted.watcher_name, call.actor))


@SECTION.route(
    "POST",
    "/operator/snapwatcher/{watcher_name}/stop",
    takes=WatcherWanted,
    gives=WatcherAnswer,
    needs=Role.OPERATOR,
    errors=(*_ERRORS, "WATCHER_NOT_FOUND"),
)
async def stop_watcher(call: Call, wanted: WatcherWanted) -> WatcherAnswer:
    """Stop a watcher."""
    watchers = call.services.watchers
    return await _answer(call, await watchers.stop(wanted.watcher_name, call.actor))


@SECTION.route(
    "DELETE",
    "/operator/snapwatcher/{watcher_name}",
    takes=WatcherWanted,
    gives=Done,
    needs=Role.OPERATOR,
    errors=("WATCHER_NOT_FOUND", "PERMISSION_DENIED"),
)
async def delete_watcher(call: Call, wanted: WatcherWanted) -> Done:
    """Stop a watcher and forget it."""
    await call.services.watchers.delete(wanted.watcher_name, call.actor)
    return Done(f"SnapWatcher '{wanted.watcher_name}' deleted successfully")


@SECTION.route(
    "GET",
    "/operator/snapwatcher/{watcher_name}/decisions",
    takes=DecisionsWanted,
    gives=DecisionPage,
    errors=("WATCHER_NOT_FOUND",),
)
async def watcher_decisions(call: Call, wanted: DecisionsWanted) -> DecisionPage:
    """What a watcher decided about pods, and why, newest first."""
    found = await call.services.watchers.decisions(wanted.watcher_name, wanted.limit, wanted.cursor)
    items = [shapes.decided(decision) for decision in found]
    return DecisionPage(items, items[-1].id if len(items) == wanted.limit else None)


@SECTION.route("GET", "/operator/watchers/status", gives=WatchersStatus)
async def watchers_status(call: Call) -> WatchersStatus:
    """All watchers, and whether they run."""
    every = await call.services.watchers.everything()
    told = {w.row.name: shapes.state(w) for w in every}
    return WatchersStatus(sum(w.is_alive for w in every), told)


@SECTION.route(
    "GET", "/operator/snapwatchers/{cluster}", takes=WatchersOfCluster, gives=WatcherList
)
async def watchers_of_cluster(call: Call, wanted: WatchersOfCluster) -> WatcherList:
    """The watchers of a cluster."""
    found = await call.services.watchers.everything(wanted.cluster)
    told = [await _answer(call, watcher) for watcher in found]
    return WatcherList(told, f"Cluster {wanted.cluster} has {len(told)} SnapWatchers")


async def _answer(call: Call, watcher: Watcher) -> WatcherAnswer:
    return shapes.answer(watcher, await shown_cluster(call, watcher.row.cluster))
