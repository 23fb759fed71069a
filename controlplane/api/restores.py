"""``/checkpoint/{id}/prefetch`` and ``/checkpoint/{id}/restore``: bring images near, start pods from them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from controlplane.api.calls import Call, Reply
from controlplane.api.fields import Id, Namespace, NodeName, PodName
from controlplane.api.jobs import describe
from controlplane.api.routing import Section
from controlplane.errors import CLUSTER_CONNECTION_FAILED, Conflict, Denied, Failed
from controlplane.identity import Role

SECTION: Final = Section("Restores", "Bring images near, and start pods from them.")
_ERRORS: Final = (
    "CHECKPOINT_NOT_FOUND",
    "PERMISSION_DENIED",
    "CONFLICT",
    "CLUSTER_NOT_FOUND",
    "NODE_NOT_FOUND",
    "AGENT_UNAVAILABLE",
)


class PrefetchRequest(msgspec.Struct):
    """Which checkpoint's image goes to which nodes."""

    example: ClassVar[dict[str, Any]] = {"nodes": ["worker-node-2"]}
    id: Id
    nodes: Annotated[list[NodeName], Meta(min_length=1, max_length=256)]
    wait: bool = True


class Prefetched(msgspec.Struct, frozen=True):
    """How it went on one node; ``status`` is the job's."""

    node_name: str
    job_id: str
    status: str
    message: str


class PrefetchAnswer(msgspec.Struct, frozen=True):
    """How it went on each node."""

    message: str
    checkpoint_id: str
    nodes: list[Prefetched]
    success: bool


class RestoreRequest(msgspec.Struct):
    """Which checkpoint, and as which pod."""

    id: Id
    namespace: Namespace | None = None
    pod_name: PodName | None = None
    node_name: NodeName | None = None
    driver: Literal["auto", "runtime", "image"] = "auto"
    restore: Literal["eager", "lazy", "auto"] = "auto"


class Restored(msgspec.Struct, frozen=True):
    """A pod goes on from a checkpoint."""

    pod_name: str
    namespace: str
    node_name: str
    driver: str
    restore_ms: float
    proof: str
    message: str
    success: bool = True


@SECTION.route(
    "POST",
    "/checkpoint/{id}/prefetch",
    takes=PrefetchRequest,
    gives=PrefetchAnswer,
    needs=Role.OPERATOR,
    query=("wait",),
    accepts=(202,),
    errors=_ERRORS,
)
async def prefetch(call: Call, wanted: PrefetchRequest) -> PrefetchAnswer | Reply:
    """Bring a checkpoint's image to nodes, so that a restore there begins at once."""
    nodes = list(dict.fromkeys(wanted.nodes))
    jobs = await call.services.placing.prefetch(wanted.id, nodes, call.actor)
    if wanted.wait:
        limit_s = call.services.settings.request_wait_s
        jobs = await asyncio.gather(*(call.services.jobs.wait(job.id, limit_s) for job in jobs))
    told = [describe(job) for job in jobs]
    each = [
        Prefetched(j.node_name, j.job_id, j.status, j.error.message if j.error else j.message)
        for j in told
    ]
    done = sum(j.status == "completed" for j in told)
    ended = all(job.is_ended for job in jobs)
    sentence = f"The image is on {done} of {len(jobs)} nodes"
    answer = PrefetchAnswer(sentence, wanted.id, each, success=done == len(jobs) or not ended)
    return answer if ended else Reply(answer, 202)


@SECTION.route(
    "POST",
    "/checkpoint/{id}/restore",
    takes=RestoreRequest,
    gives=Restored,
    needs=Role.OPERATOR,
    errors=(*_ERRORS, "RESTORE_FAILED", CLUSTER_CONNECTION_FAILED),
)
async def restore(call: Call, wanted: RestoreRequest) -> Restored:
    """Start a pod from a checkpoint: needs the cluster's API server, which makes the pod."""
    found = await call.services.checkpoints.get(wanted.id, call.actor)
    namespace = wanted.namespace or found.namespace
    for where in (found.namespace, namespace):
        if not call.actor.may_act_in(where):
            raise Denied(f"User {call.actor.username} may not act in namespace {where}.")
    if not found.images:
        raise Conflict(f"Checkpoint {found.id} has no image yet; push it first.")
    await call.services.cluster_apis.check(found.cluster)
    raise Failed(
        f"Cluster {found.cluster} answers, but this version of SNAP does not make pods itself; create "
        f"one with the runtime class snap and the annotation snap.weaversoft.io/checkpoint naming "
        f"{found.images[0].reference}.",
        code="RESTORE_FAILED",
    )
