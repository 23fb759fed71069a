"""``/registry/*``: prove that a registry config works, and push a checkpoint that exists."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta

from controlplane.api.calls import Call, Done, Reply
from controlplane.api.checkpoints import PUSH_ERRORS, TARGET_ERRORS
from controlplane.api.fields import NO_NUL, Line, Name, OptionalName, PodName
from controlplane.api.jobs import outcome
from controlplane.api.routing import Section
from controlplane.checkpoints.commands import PushTarget
from controlplane.identity import Role
from controlplane.store.records import Job

SECTION: Final = Section("Registries", "Logging in to registries, and pushing to them.")


class RegistryLogin(msgspec.Struct):
    """Which registry config."""

    example: ClassVar[dict[str, Any]] = {"registry_config_name": "nexus-registry"}
    registry_config_name: Name


class PushRequest(msgspec.Struct):
    """Which checkpoint goes to which registry config; ``username`` is recorded, not used."""

    example: ClassVar[dict[str, Any]] = {
        "checkpoint_name": "test-app-checkpoint",
        "username": "admin",
        "pod_name": "test-app",
        "checkpoint_config_name": "default",
    }
    checkpoint_name: Annotated[str, Meta(min_length=1, max_length=512, pattern=NO_NUL)]
    pod_name: PodName | None = None
    username: Line | None = None
    checkpoint_config_name: OptionalName | None = None
    wait: bool = True


class ImagePushed(msgspec.Struct, frozen=True):
    """A checkpoint was pushed."""

    image_tag: str
    image: str
    image_digest: str
    job_id: str
    message: str = "Checkpoint image successfully committed and pushed"
    success: bool = True


@SECTION.route(
    "POST",
    "/registry/login",
    takes=RegistryLogin,
    gives=Done,
    needs=Role.OPERATOR,
    errors=PUSH_ERRORS,
)
async def log_in(call: Call, wanted: RegistryLogin) -> Done:
    """Log in to a registry, really.

    On failure ``details`` begins with ``unauthorized:``, ``unreachable:`` or ``certificate:``.
    """
    host = await call.services.registries.login(wanted.registry_config_name)
    return Done(f"Successfully logged in to {host}")


@SECTION.route(
    "POST",
    "/registry/create_and_push_checkpoint_container",
    takes=PushRequest,
    gives=ImagePushed,
    needs=Role.OPERATOR,
    accepts=(202,),
    query=("wait",),
    errors=("CHECKPOINT_NOT_FOUND", *TARGET_ERRORS, *PUSH_ERRORS),
)
async def push(call: Call, wanted: PushRequest) -> ImagePushed | Reply:
    """Make an image of a checkpoint and push it.

    ``checkpoint_name`` is an id, a file name with or without ``.tar``, or ``<pod_name>-checkpoint`` for the pod's
    newest.
    """
    target = PushTarget(registry=wanted.checkpoint_config_name or "")
    job = await call.services.checkpoints.push_existing(
        wanted.checkpoint_name, wanted.pod_name or "", target, call.actor
    )

    async def answer(job: Job) -> ImagePushed:
        done = job.result.pushes[0] if job.result and job.result.pushes else None
        image = done.image if done else ""
        return ImagePushed(image, image, done.digest if done else "", job.id)

    return await outcome(call, job, wanted.wait, answer)
