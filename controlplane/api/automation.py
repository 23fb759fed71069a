"""``/automation/trigger``: checkpoint a pod and push what came of it, in one go."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta

from controlplane.api.calls import Call, Reply
from controlplane.api.checkpoints import PUSH_ERRORS, TARGET_ERRORS
from controlplane.api.fields import ContainerName, Line, Name, Namespace, NodeName, PodName, Secret
from controlplane.api.jobs import outcome
from controlplane.api.routing import Section
from controlplane.checkpoints.commands import CheckpointCommand, PushTarget
from controlplane.identity import Role
from controlplane.store.records import Job

SECTION: Final = Section("Automation", "Checkpoint and push in one go.")
_PLACEHOLDER: Final = "********"
# a config's name, or a registry's host
RegistryName = Annotated[
    str, Meta(max_length=255, pattern=r"^(https?://)?[A-Za-z0-9][A-Za-z0-9._:/-]*$(?!\n)")
]


class Trigger(msgspec.Struct):
    """Which pod, and to which registry; all of its containers if none is named.

    ``registry`` is a config's name or the host of one. ``username`` and ``password`` are used in place of
    the config's, for this job only.
    """

    aliases: ClassVar[dict[str, str]] = {"cluster": "cluster_name"}
    example: ClassVar[dict[str, Any]] = {
        "pod_name": "test-app",
        "namespace": "default",
        "node_name": "worker-node-1",
        "container_name": "test-app",
        "cluster_name": "production-cluster",
        "registry": "nexus-registry",
        "username": "admin",
        "password": "password123",
    }
    pod_name: PodName
    namespace: Namespace
    node_name: NodeName | None = None
    container_name: ContainerName | None = None
    cluster_name: Name | None = None
    registry: RegistryName | None = None
    username: Line | None = None
    password: Secret | None = None
    wait: bool = True


class ImageTag(msgspec.Struct, frozen=True):
    """The image of one container."""

    container_id: str
    image_repo: str
    tag: str


class Triggered(msgspec.Struct, frozen=True):
    """A pod was checkpointed and its images are pushed."""

    image_tag: str
    image_tags: list[ImageTag]
    checkpoint_ids: list[str]
    job_id: str
    message: str = "Automation completed successfully"
    success: bool = True


@SECTION.route(
    "POST",
    "/automation/trigger",
    takes=Trigger,
    gives=Triggered,
    needs=Role.OPERATOR,
    accepts=(202,),
    query=("wait",),
    errors=(*TARGET_ERRORS, *PUSH_ERRORS),
)
async def trigger(call: Call, wanted: Trigger) -> Triggered | Reply:
    """Checkpoint a pod's containers, frozen together, and push the images."""
    given = wanted.password if wanted.password not in (None, "", _PLACEHOLDER) else ""
    target = PushTarget(
        registry=_registry(wanted.registry or ""),
        username=(wanted.username or "") if given else "",
        password=given or "",
    )
    command = CheckpointCommand(
        namespace=wanted.namespace,
        pod_name=wanted.pod_name,
        container_name=wanted.container_name or "*",
        cluster_name=wanted.cluster_name or "",
        node_name=wanted.node_name or "",
        idempotency_key=call.idempotency_key,
        body=call.fingerprint,
    )
    service = call.services.checkpoints
    job = await service.checkpoint_and_push(command, target, call.actor)

    async def answer(job: Job) -> Triggered:
        made = [c for c in await service.of_job(job.id) if c.images]
        tags = [
            ImageTag(c.container_id, c.images[0].repository, c.images[0].image.rpartition(":")[2])
            for c in made
        ]
        first = made[0].images[0].image if made else ""
        return Triggered(first, tags, [c.id for c in made], job.id)

    return await outcome(call, job, wanted.wait, answer)


def _registry(text: str) -> str:
    """A config's name, or the host without scheme and path."""
    return text.partition("://")[2].partition("/")[0] if "://" in text else text.partition("/")[0]
