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
from controlplane.checkpoints.restoring import RestoreCommand
from controlplane.errors import CLUSTER_CONNECTION_FAILED
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
    """Which checkpoint, and as which pod; what is left out is chosen.

    ``service_account`` (default: ``default``) is an administrator's to give.
    """

    id: Id
    namespace: Namespace | None = None
    pod_name: PodName | None = None
    node_name: NodeName | None = None
    driver: Literal["auto", "runtime", "image"] = "auto"
    restore: Literal["eager", "lazy", "auto"] | None = None
    service_account: PodName | None = None


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
    audited=True,
)
async def restore(call: Call, wanted: RestoreRequest) -> Restored:
    """Make a pod from a checkpoint, and wait until it goes on from there.

    The cluster's API server makes it, of the template that was stored with the checkpoint. A pod that was not
    restored is removed again; the answer says why.
    """
    command = RestoreCommand(
        checkpoint=wanted.id,
        namespace=wanted.namespace or "",
        pod_name=wanted.pod_name or "",
        node_name=wanted.node_name or "",
        driver=wanted.driver,
        mode=wanted.restore or "",
        service_account=wanted.service_account or "",
    )
    pod = await call.services.restoring.restore(command, call.actor)
    call.subject = f"{pod.namespace}/{pod.name}"
    return Restored(
        pod_name=pod.name,
        namespace=pod.namespace,
        node_name=pod.node,
        driver=pod.driver,
        restore_ms=pod.restore_ms,
        proof=pod.proof,
        message=f"Pod {pod.name} goes on from checkpoint {wanted.id} on node {pod.node}",
    )
