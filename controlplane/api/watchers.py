"""``/operator/*``: watchers, which checkpoint pods when something happens to them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from controlplane.api.calls import Call, Done
from controlplane.api.fields import Limit, Name, OptionalName
from controlplane.api.operated import SentCluster, ShownCluster, shown_cluster
from controlplane.api.routing import Section
from controlplane.identity import Role
from controlplane.watcher.service import Watcher, WatcherDraft

SECTION: Final = Section("Watchers", "Checkpoint pods when something happens to them.")
Scope = Literal["cluster", "namespace"]
TriggerKind = Literal["startupProbe", "ready", "running", "annotation", "schedule", "drain"]
Delay = Annotated[float, Meta(ge=0, le=86_400)]
Cron = Annotated[str, Meta(max_length=200, pattern=r"^[A-Za-z0-9*/,# -]*$(?!\n)")]
_ERRORS: Final = ("CLUSTER_NOT_FOUND", "CONFLICT", "PERMISSION_DENIED")
_START_ERRORS: Final = (*_ERRORS, "WATCHER_NOT_FOUND", "CLUSTER_CONNECTION_FAILED")
_CLUSTER: Final = {"api_server_url": "https://api.cluster.com:6443", "auth_type": "kubeconfig"}


class OperatorStart(msgspec.Struct):
    """Which cluster's default watcher starts, and how it is set."""

    example: ClassVar[dict[str, Any]] = {
        "cluster_name": "production-cluster",
        "cluster_config": _CLUSTER,
        "scope": "cluster",
        "namespace": "snap",
        "auto_delete_pod": True,
    }
    cluster_name: Name | None = None
    cluster_config: SentCluster | None = None
    scope: Scope | None = None
    namespace: OptionalName | None = None
    auto_delete_pod: bool | None = None


class OperatorStop(msgspec.Struct):
    """Which cluster's default watcher stops; all of them if none is named."""

    example: ClassVar[dict[str, Any]] = {"cluster_name": "production-cluster"}
    cluster_name: OptionalName | None = None


class OperatorState(msgspec.Struct, frozen=True):
    """Whether a default watcher runs; ``error`` says why not."""

    running: bool
    cluster_name: str | None
    error: str | None
    success: bool = True


class ActiveWatcher(msgspec.Struct, frozen=True):
    """A watcher that should run; ``status`` is active, or error."""

    name: str
    cluster_name: str
    status: str
    started_at: str


class OperatorStatus(msgspec.Struct, frozen=True):
    """Whether any watcher runs, and all that should."""

    running: bool
    cluster_name: str | None
    error: str | None
    active_watchers: list[ActiveWatcher]
    success: bool = True


class WatcherCreate(msgspec.Struct):
    """A new watcher.

    ``trigger_delay_s``: triggers ready and running: for how long before. ``schedule``: trigger schedule:
    five fields as cron has them, UTC.
    """

    example: ClassVar[dict[str, Any]] = {
        "name": "production-watcher",
        "cluster_name": "production-cluster",
        "cluster_config": _CLUSTER,
        "scope": "cluster",
        "namespace": "snap",
        "trigger": "startupProbe",
        "auto_delete_pod": True,
    }
    rules: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "anyOf": [
                {"properties": {"scope": {"not": {"const": "namespace"}}}},
                {
                    "properties": {"namespace": {"type": "string", "minLength": 1}},
                    "required": ["namespace"],
                },
            ]
        },
    )
    name: Name
    cluster_name: Name | None = None
    cluster_config: SentCluster | None = None
    scope: Scope = "cluster"
    namespace: OptionalName | None = None
    trigger: TriggerKind = "startupProbe"
    trigger_delay_s: Delay = 0.0
    schedule: Cron = ""
    auto_delete_pod: bool = True


class WatcherChange(msgspec.Struct):
    """Changes to a watcher; what is absent stays."""

    watcher_name: Name
    cluster_name: Name | None = None
    cluster_config: SentCluster | None = None
    scope: Scope | None = None
    namespace: OptionalName | None = None
    trigger: TriggerKind | None = None
    trigger_delay_s: Delay | None = None
    schedule: Cron | None = None
    auto_delete_pod: bool | None = None


class WatcherWanted(msgspec.Struct):
    """Which watcher."""

    watcher_name: Name


class WatchersOfCluster(msgspec.Struct):
    """Of which cluster."""

    cluster: Name


class DecisionsWanted(msgspec.Struct):
    """Whose decisions, how many, and before which."""

    watcher_name: Name
    limit: Limit = 100
    cursor: Annotated[int, Meta(ge=1, le=2**53)] | None = None


class WatcherAnswer(msgspec.Struct, frozen=True):
    """A watcher: ``status`` is running, stopped or error; ``thread_alive`` is the real state of its watch.

    ``error_message`` and ``failing_since``: what is wrong, and since when.
    """

    name: str
    cluster_name: str
    cluster_config: ShownCluster
    scope: str
    namespace: str
    trigger: str
    status: str
    auto_delete_pod: bool
    thread_alive: bool
    error_message: str | None
    failing_since: str | None
    trigger_delay_s: float
    schedule: str
    started_at: str | None
    last_update: str
    updated_at: str
    created_at: str
    success: bool = True


class WatcherList(msgspec.Struct, frozen=True):
    """The watchers of a cluster."""

    watchers: list[WatcherAnswer]
    message: str
    success: bool = True


class WatcherState(msgspec.Struct, frozen=True):
    """A watcher in brief."""

    running: bool
    cluster_name: str
    scope: str
    namespace: str
    thread_alive: bool
    status: str
    error_message: str | None


class WatchersStatus(msgspec.Struct, frozen=True):
    """All watchers by name; ``active_watchers`` is how many really run."""

    active_watchers: int
    watchers: dict[str, WatcherState]
    success: bool = True


class DecisionAnswer(msgspec.Struct, frozen=True):
    """What was decided about a pod."""

    id: int
    at: str
    namespace: str
    pod_name: str
    container_name: str
    decision: str
    reason: str
    job_id: str | None


class DecisionPage(msgspec.Struct, frozen=True):
    """Decisions, newest first; ``next_cursor`` asks for more."""

    decisions: list[DecisionAnswer]
    next_cursor: int | None
    success: bool = True


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
        active_watchers=[
            ActiveWatcher(
                w.row.name, w.row.cluster, "active" if w.is_alive else w.status, w.row.started_at
            )
            for w in wanted
        ],
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
    draft = WatcherDraft(
        wanted.name,
        cluster=wanted.cluster_name,
        scope=wanted.scope,
        namespace=wanted.namespace,
        trigger=wanted.trigger,
        auto_delete_pod=wanted.auto_delete_pod,
        delay_s=wanted.trigger_delay_s,
        schedule=wanted.schedule,
    )
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
    draft = WatcherDraft(
        wanted.watcher_name,
        cluster=wanted.cluster_name,
        scope=wanted.scope,
        namespace=wanted.namespace,
        trigger=wanted.trigger,
        auto_delete_pod=wanted.auto_delete_pod,
        delay_s=wanted.trigger_delay_s,
        schedule=wanted.schedule,
    )
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
    items = [
        DecisionAnswer(
            id=d.number,
            at=d.at,
            namespace=d.namespace,
            pod_name=d.pod_name,
            container_name=d.container_name,
            decision=d.decision,
            reason=d.reason,
            job_id=d.job_id or None,
        )
        for d in found
    ]
    return DecisionPage(items, items[-1].id if len(items) == wanted.limit else None)


@SECTION.route("GET", "/operator/watchers/status", gives=WatchersStatus)
async def watchers_status(call: Call) -> WatchersStatus:
    """All watchers, and whether they run."""
    every = await call.services.watchers.everything()
    told = {
        w.row.name: WatcherState(
            running=w.is_alive,
            cluster_name=w.row.cluster,
            scope=w.row.scope,
            namespace=w.row.namespace,
            thread_alive=w.is_alive,
            status=w.status,
            error_message=w.error or None,
        )
        for w in every
    }
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
    row = watcher.row
    return WatcherAnswer(
        name=row.name,
        cluster_name=row.cluster,
        cluster_config=await shown_cluster(call, row.cluster),
        scope=row.scope,
        namespace=row.namespace,
        trigger=row.trigger,
        status=watcher.status,
        auto_delete_pod=row.auto_delete_pod,
        thread_alive=watcher.is_alive,
        error_message=watcher.error or None,
        failing_since=watcher.failing_since or None,
        trigger_delay_s=row.delay_s,
        schedule=row.schedule,
        started_at=row.started_at or None,
        last_update=row.updated_at,
        updated_at=row.updated_at,
        created_at=row.created_at,
    )
