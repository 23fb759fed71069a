"""``/checkpoint/*``: make checkpoints, push them, list, download, pin, share and delete them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web

from controlplane.api import archives
from controlplane.api.calls import Call, Done, Reply
from controlplane.api.checkpoint_answers import CheckpointAnswer, PushedAnswer, created, pushed
from controlplane.api.checkpoint_requests import (
    ArchiveWanted,
    CheckpointAndPush,
    CheckpointList,
    CheckpointRequest,
    CheckpointWanted,
    DeleteRequest,
    PinRequest,
    ShareRequest,
)
from controlplane.api.checkpoint_views import (
    CheckpointDetails,
    CheckpointsPage,
    Shared,
    detailed,
    item,
)
from controlplane.api.jobs import outcome
from controlplane.api.routing import Section
from controlplane.checkpoints.commands import CheckpointCommand, CheckpointFilter, PushTarget
from controlplane.identity import Role
from controlplane.store.records import Job
from controlplane.store.starts import StartTimes

_NO_TIMES: Final = StartTimes()
_ENCODER: Final = msgspec.json.Encoder()
SECTION: Final = Section("Checkpoints", "Checkpoints of running containers.")
TARGET_ERRORS: Final = (
    "CLUSTER_NOT_FOUND",
    "CONTAINER_NOT_FOUND",
    "NODE_NOT_FOUND",
    "POD_NOT_FOUND",
    "PERMISSION_DENIED",
    "CONFLICT",
    "CHECKPOINT_REFUSED",
    "INTERNAL_ERROR",
    "CHECKPOINT_FAILED",
    "AGENT_UNAVAILABLE",
    "TIMEOUT",
    "INSUFFICIENT_STORAGE",
)
PUSH_ERRORS: Final = ("REGISTRY_NOT_FOUND", "REGISTRY_CONNECTION_FAILED")
_READ_ERRORS: Final = ("CHECKPOINT_NOT_FOUND",)
_NODE_ERRORS: Final = ("CHECKPOINT_NOT_FOUND", "PERMISSION_DENIED", "AGENT_UNAVAILABLE", "TIMEOUT")


@SECTION.route(
    "POST",
    "/checkpoint/kubelet/checkpoint",
    takes=CheckpointRequest,
    gives=CheckpointAnswer,
    needs=Role.OPERATOR,
    accepts=(202,),
    query=("wait",),
    errors=TARGET_ERRORS,
)
async def checkpoint(call: Call, wanted: CheckpointRequest) -> CheckpointAnswer | Reply:
    """Checkpoint a running container.

    The container goes on running afterwards, unless ``leave_running`` is false. Node, container and cluster are
    found out where there is only one; ``container_name`` ``"*"`` means all of the pod's ``containers``, frozen
    together. Sidecars (init containers that go on running) are checkpointed only by name.
    """
    job = await call.services.checkpoints.checkpoint(_command(call, wanted), call.actor)

    async def answer(job: Job) -> CheckpointAnswer:
        return created(job, await call.services.checkpoints.of_job(job.id))

    return await outcome(call, job, wanted.wait, answer)


@SECTION.route(
    "POST",
    "/checkpoint/kubelet/checkpoint-and-push",
    takes=CheckpointAndPush,
    gives=PushedAnswer,
    needs=Role.OPERATOR,
    accepts=(202,),
    query=("pod_name", "node_name", "container_name", "checkpoint_config_name", "wait"),
    errors=(*TARGET_ERRORS, *PUSH_ERRORS),
)
async def checkpoint_and_push(call: Call, wanted: CheckpointAndPush) -> PushedAnswer | Reply:
    """Checkpoint a running container and push the checkpoint as an image.

    ``registry`` and ``checkpoint_config_name`` both name a registry config; absent or ``"default"`` means the
    cluster's, else the only one. Without ``image_name`` and ``tag`` the image is named after cluster, namespace
    and app.
    """
    target = PushTarget(
        registry=wanted.registry or wanted.checkpoint_config_name or "",
        image_name=wanted.image_name or "",
        tag=wanted.tag or "",
        compression=wanted.compression,
    )
    service = call.services.checkpoints
    job = await service.checkpoint_and_push(_command(call, wanted), target, call.actor)
    return await outcome(call, job, wanted.wait, pushed_of(call))


@SECTION.route("GET", "/checkpoint/list", takes=CheckpointList, gives=CheckpointsPage)
async def list_checkpoints(call: Call, wanted: CheckpointList) -> web.Response:
    """Checkpoints, newest first; without ``status`` all but deleted ones."""
    wish = CheckpointFilter(
        cluster_name=wanted.cluster_name or "",
        namespace=wanted.namespace or "",
        pod_name=wanted.pod_name or "",
        status=wanted.status,
    )
    service = call.services.checkpoints

    async def make() -> bytes:
        page = await service.list(wish, call.actor, wanted.limit, wanted.cursor)
        items = [item(c, page.times.get(c.id, _NO_TIMES)) for c in page.checkpoints]
        return _ENCODER.encode(CheckpointsPage(items, page.next_cursor))

    # every user sees the same list, so one answer serves all until a checkpoint changes
    key = (wish, wanted.limit, wanted.cursor)
    body = await call.services.lists.answer(key, service.revision(), make)
    return web.Response(body=body, content_type="application/json")


@SECTION.route(
    "GET",
    "/checkpoint/download/{pod_name}/{filename}",
    "/checkpoint/download/{pod_name}",
    takes=ArchiveWanted,
    needs=Role.OPERATOR,
    audited=True,
    media="application/octet-stream",
    accepts=(206, 304),
    errors=(*_NODE_ERRORS, "CONFLICT", "RANGE_NOT_SATISFIABLE"),
)
async def download(call: Call, wanted: ArchiveWanted) -> web.StreamResponse:
    """Download a checkpoint's archive, a plain tar.

    Streamed from the node, or from here if it was uploaded; when the node is gone, another one makes it of the
    image. ``Range`` resumes, ``ETag`` tells whether it is still the same.
    """
    call.subject = f"checkpoint/{wanted.filename}"
    return await archives.send(call, wanted.pod_name, wanted.filename)


@SECTION.route(
    "HEAD",
    "/checkpoint/download/{pod_name}/{filename}",
    "/checkpoint/download/{pod_name}",
    takes=ArchiveWanted,
    needs=Role.OPERATOR,
    media="application/octet-stream",
    accepts=(206, 304),
    errors=(*_NODE_ERRORS, "CONFLICT", "RANGE_NOT_SATISFIABLE"),
)
async def archive_head(call: Call, wanted: ArchiveWanted) -> web.StreamResponse:
    """Size and ``ETag`` of a checkpoint's archive."""
    return await archives.send(call, wanted.pod_name, wanted.filename)


@SECTION.route(
    "GET", "/checkpoint/{id}", takes=CheckpointWanted, gives=CheckpointDetails, errors=_READ_ERRORS
)
async def get_checkpoint(call: Call, wanted: CheckpointWanted) -> CheckpointDetails:
    """One checkpoint, by id or file name."""
    found = await call.services.checkpoints.get(wanted.id, call.actor)
    return detailed(found, *await call.services.checkpoints.restores(found))


@SECTION.route(
    "DELETE",
    "/checkpoint/{id}",
    takes=DeleteRequest,
    gives=Done,
    needs=Role.OPERATOR,
    accepts=(202,),
    query=("keep_image", "wait"),
    errors=(*_NODE_ERRORS, "CONFLICT", "REGISTRY_CONNECTION_FAILED"),
)
async def delete_checkpoint(call: Call, wanted: DeleteRequest) -> Done | Reply:
    """Delete a checkpoint on its node, and its images in the registry unless ``keep_image``."""
    service = call.services.checkpoints
    job = await service.delete(wanted.id, call.actor, keep_image=wanted.keep_image)
    done = Done(f"Checkpoint {wanted.id} deleted successfully")
    if job is None:
        return done

    async def answer(_job: Job) -> Done:
        return done

    return await outcome(call, job, wanted.wait, answer)


@SECTION.route(
    "POST",
    "/checkpoint/{id}/pin",
    takes=PinRequest,
    gives=CheckpointDetails,
    needs=Role.OPERATOR,
    errors=(*_READ_ERRORS, "PERMISSION_DENIED", "CONFLICT"),
)
async def pin_checkpoint(call: Call, wanted: PinRequest) -> CheckpointDetails:
    """Keep a checkpoint from being deleted by age (or, with ``pinned`` false, no longer)."""
    kept = await call.services.checkpoints.pin(wanted.id, call.actor, pinned=wanted.pinned)
    return detailed(kept, *await call.services.checkpoints.restores(kept))


@SECTION.route(
    "POST",
    "/checkpoint/{id}/share",
    takes=ShareRequest,
    gives=Shared,
    needs=Role.ADMINISTRATOR,
    errors=(*_READ_ERRORS, "CONFLICT"),
)
async def share_checkpoint(call: Call, wanted: ShareRequest) -> Shared:
    """Let pods of other namespaces be restored from a checkpoint too: its memory holds secrets."""
    namespaces = tuple(dict.fromkeys(wanted.namespaces))
    await call.services.checkpoints.share(wanted.id, namespaces, call.actor)
    sentence = f"Checkpoint {wanted.id} may be restored in {', '.join(namespaces)} too"
    return Shared(sentence, wanted.id, list(namespaces))


def pushed_of(call: Call) -> Callable[[Job], Awaitable[PushedAnswer]]:
    """What a job that pushed answers when it is done."""

    async def answer(job: Job) -> PushedAnswer:
        return pushed(job, await call.services.checkpoints.of_job(job.id))

    return answer


def _command(call: Call, wanted: CheckpointRequest) -> CheckpointCommand:
    return CheckpointCommand(
        namespace=wanted.namespace,
        pod_name=wanted.pod_name,
        container_name=wanted.container_name or "",
        cluster_name=wanted.cluster_name or "",
        kube_api_address=wanted.kube_api_address or "",
        node_name=wanted.node_name or "",
        engine=wanted.engine,
        leave_running=wanted.leave_running,
        timeout_s=wanted.timeout_s,
        strict=wanted.strict,
        restore_mode=wanted.restore or "",
        idempotency_key=call.idempotency_key,
        body=call.fingerprint,
    )
