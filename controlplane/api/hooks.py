"""``/snaphook*``: hooks, which let new pods start from checkpoints."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from controlplane.api.calls import Call, Done
from controlplane.api.fields import WEBHOOK_PATTERN, Name, NewHookName, OptionalName
from controlplane.api.operated import SentCluster
from controlplane.api.routing import Section
from controlplane.hook.service import Hook
from controlplane.identity import Role
from controlplane.store.hooks import HookRow

SECTION: Final = Section("Hooks", "Let new pods start from checkpoints.")
_ERRORS: Final = ("CLUSTER_NOT_FOUND", "CONFLICT", "PERMISSION_DENIED")
_START_ERRORS: Final = (*_ERRORS, "HOOK_NOT_FOUND", "CLUSTER_CONNECTION_FAILED")
WebhookUrl = Annotated[str, Meta(max_length=2048, pattern=WEBHOOK_PATTERN)]
Days = Annotated[int, Meta(ge=1, le=3650)]


class HookCreate(msgspec.Struct):
    """A new hook.

    ``webhook_url`` empty: the control plane's own address. ``driver``: ``runtime`` (pods keep their image, and can
    always start cold) or ``image`` (the pod's image becomes the checkpoint's; for runtimes that restore by themselves).
    """

    example: ClassVar[dict[str, Any]] = {
        "name": "production-snaphook",
        "cluster_name": "production-cluster",
        "cluster_config": {"api_server_url": "https://api.cluster.com:6443"},
        "webhook_url": "https://snap.company.com/webhook",
        "namespace": "snap",
        "cert_expiry_days": 365,
    }
    name: NewHookName
    cluster_name: Name | None = None
    cluster_config: SentCluster | None = None
    webhook_url: WebhookUrl | None = None
    namespace: OptionalName | None = None
    cert_expiry_days: Days = 365
    driver: Literal["runtime", "image"] = "runtime"


class HookWanted(msgspec.Struct):
    """Which hook."""

    name: Name


class HookState(msgspec.Struct, frozen=True):
    """How a hook is."""

    cluster_name: str
    namespace: str
    webhook_url: str
    is_running: bool
    certificate_generated: bool
    certificate_expiry_days: int
    https_server_port: int


class HookAnswer(msgspec.Struct, frozen=True):
    """A hook; ``error_message`` says why one that was started does not run."""

    name: str
    cluster_name: str
    webhook_url: str
    namespace: str
    is_running: bool
    cert_expiry_days: int
    driver: str
    status: HookState
    error_message: str | None
    created_at: str
    updated_at: str
    success: bool = True


class HookList(msgspec.Struct, frozen=True):
    """All hooks."""

    snaphooks: list[HookAnswer]
    message: str
    success: bool = True


class ConnectivityAnswer(msgspec.Struct, frozen=True):
    """The hook's cluster answers; whether it calls the hook, when a pod is created there, was tried."""

    message: str
    cluster_name: str
    version: str
    webhook_url: str
    webhook_reached: bool
    success: bool = True


@SECTION.route(
    "POST",
    "/snaphook",
    takes=HookCreate,
    gives=HookAnswer,
    needs=Role.OPERATOR,
    errors=_ERRORS,
)
async def create_hook(call: Call, wanted: HookCreate) -> HookAnswer:
    """Make a hook; it is not started."""
    row = HookRow(
        wanted.name,
        wanted.cluster_name or "",
        webhook_url=wanted.webhook_url or "",
        namespace=wanted.namespace or "snap",
        cert_expiry_days=wanted.cert_expiry_days,
        driver=wanted.driver,
    )
    return _answer(call, await call.services.hooks.create(row, call.actor))


@SECTION.route("GET", "/snaphook/list", "/snaphooks", "/snaphook-configs", gives=HookList)
async def list_hooks(call: Call) -> HookList:
    """All hooks."""
    found = [_answer(call, hook) for hook in await call.services.hooks.everything()]
    return HookList(found, f"Found {len(found)} SnapHooks")


@SECTION.route(
    "GET",
    "/snaphook/{name}",
    "/snaphook/{name}/status",
    takes=HookWanted,
    gives=HookAnswer,
    errors=("HOOK_NOT_FOUND",),
)
async def get_hook(call: Call, wanted: HookWanted) -> HookAnswer:
    """A hook and whether it runs."""
    return _answer(call, await call.services.hooks.get(wanted.name))


@SECTION.route(
    "POST",
    "/snaphook/{name}/start",
    takes=HookWanted,
    gives=HookAnswer,
    needs=Role.OPERATOR,
    errors=_START_ERRORS,
)
async def start_hook(call: Call, wanted: HookWanted) -> HookAnswer:
    """Start a hook; if that fails it is tried again, until it is stopped."""
    return _answer(call, await call.services.hooks.start(wanted.name, call.actor))


@SECTION.route(
    "POST",
    "/snaphook/{name}/stop",
    takes=HookWanted,
    gives=HookAnswer,
    needs=Role.OPERATOR,
    errors=(*_ERRORS, "HOOK_NOT_FOUND"),
)
async def stop_hook(call: Call, wanted: HookWanted) -> HookAnswer:
    """Stop a hook."""
    return _answer(call, await call.services.hooks.stop(wanted.name, call.actor))


@SECTION.route(
    "POST",
    "/snaphook/{name}/renew-certificates",
    takes=HookWanted,
    gives=HookAnswer,
    needs=Role.OPERATOR,
    errors=_START_ERRORS,
)
async def renew_certificates(call: Call, wanted: HookWanted) -> HookAnswer:
    """Give a running hook a new certificate."""
    return _answer(call, await call.services.hooks.renew(wanted.name, call.actor))


@SECTION.route(
    "GET",
    "/snaphook/{name}/test-connectivity",
    takes=HookWanted,
    gives=ConnectivityAnswer,
    errors=_START_ERRORS,
)
async def test_connectivity(call: Call, wanted: HookWanted) -> ConnectivityAnswer:
    """Whether the hook's cluster answers, takes the stored credential, and calls the hook."""
    hook, why = await call.services.hooks.probe(wanted.name)
    cluster = hook.row.cluster
    version = await call.services.cluster_apis.check(cluster)
    told = (
        f"it does not call hook {hook.row.name}: {why}" if why else f"it calls hook {hook.row.name}"
    )
    return ConnectivityAnswer(
        f"The API server of cluster {cluster} answers; {told}", cluster, version, hook.url, not why
    )


@SECTION.route(
    "DELETE",
    "/snaphook/{name}",
    takes=HookWanted,
    gives=Done,
    needs=Role.OPERATOR,
    errors=("HOOK_NOT_FOUND", "PERMISSION_DENIED"),
)
async def delete_hook(call: Call, wanted: HookWanted) -> Done:
    """Stop a hook and forget it."""
    await call.services.hooks.delete(wanted.name, call.actor)
    return Done(f"SnapHook '{wanted.name}' deleted successfully")


def _answer(call: Call, hook: Hook) -> HookAnswer:
    row, port = hook.row, call.services.settings.hook_addr.port
    state = HookState(
        cluster_name=row.cluster,
        namespace=row.namespace,
        webhook_url=hook.url,
        is_running=hook.is_running,
        certificate_generated=hook.is_running,
        certificate_expiry_days=row.cert_expiry_days,
        https_server_port=port,
    )
    return HookAnswer(
        name=row.name,
        cluster_name=row.cluster,
        webhook_url=hook.url,
        namespace=row.namespace,
        is_running=hook.is_running,
        cert_expiry_days=row.cert_expiry_days,
        driver=row.driver,
        status=state,
        error_message=hook.error or None,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
