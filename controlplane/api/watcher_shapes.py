"""What requests about watchers carry, and what they are answered."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from controlplane.api.fields import Limit, Name, OptionalName
from controlplane.api.operated import SentCluster, ShownCluster
from controlplane.store.watchers import Decision
from controlplane.watcher.drafts import WatcherDraft
from controlplane.watcher.service import Watcher

Scope = Literal["cluster", "namespace"]
TriggerKind = Literal["startupProbe", "ready", "running", "annotation", "schedule", "drain"]
Delay = Annotated[float, Meta(ge=0, le=86_400)]
Cron = Annotated[str, Meta(max_length=200, pattern=r"^[A-Za-z0-9*/,# -]*$(?!\n)")]
# five fields; what may be in each, calendars decide (``triggers.check_schedule``)
_CRON_PATTERN: Final = r"^ *[A-Za-z0-9*/,#-]+( +[A-Za-z0-9*/,#-]+){4} *$"
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
        {
            "anyOf": [
                {"properties": {"trigger": {"not": {"const": "schedule"}}}},
                {
                    "properties": {"schedule": {"pattern": _CRON_PATTERN}},
                    "required": ["schedule"],
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


def draft(name: str, wanted: WatcherCreate | WatcherChange) -> WatcherDraft:
    """What the watcher ``name`` is to be set to."""
    return WatcherDraft(
        name,
        cluster=wanted.cluster_name,
        scope=wanted.scope,
        namespace=wanted.namespace,
        trigger=wanted.trigger,
        auto_delete_pod=wanted.auto_delete_pod,
        delay_s=wanted.trigger_delay_s,
        schedule=wanted.schedule,
    )


def active(watcher: Watcher) -> ActiveWatcher:
    """A watcher that should run, in the list of those."""
    row = watcher.row
    status = "active" if watcher.is_alive else watcher.status
    return ActiveWatcher(row.name, row.cluster, status, row.started_at)


def state(watcher: Watcher) -> WatcherState:
    """A watcher in brief."""
    return WatcherState(
        running=watcher.is_alive,
        cluster_name=watcher.row.cluster,
        scope=watcher.row.scope,
        namespace=watcher.row.namespace,
        thread_alive=watcher.is_alive,
        status=watcher.status,
        error_message=watcher.error or None,
    )


def decided(decision: Decision) -> DecisionAnswer:
    """A decision as clients see it."""
    return DecisionAnswer(
        id=decision.number,
        at=decision.at,
        namespace=decision.namespace,
        pod_name=decision.pod_name,
        container_name=decision.container_name,
        decision=decision.decision,
        reason=decision.reason,
        job_id=decision.job_id or None,
    )


def answer(watcher: Watcher, cluster: ShownCluster) -> WatcherAnswer:
    """A watcher with all that is known of it; ``cluster`` is its own."""
    row = watcher.row
    return WatcherAnswer(
        name=row.name,
        cluster_name=row.cluster,
        cluster_config=cluster,
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
