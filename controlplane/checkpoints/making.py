"""From a request to the job that makes checkpoints, and the rows that show them from the start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlite_utils import Database

from controlplane.checkpoints import containers, naming, podtemplates, probing, pushing
from controlplane.checkpoints.commands import CheckpointCommand
from controlplane.checkpoints.ports import FoundContainer, FoundPod
from controlplane.checkpoints.pushing import PushPlan, PushSource
from controlplane.identity import Actor
from controlplane.store import checkpoints as rows
from controlplane.store import clock
from controlplane.store.records import (
    Checkpoint,
    CheckpointSpec,
    CheckpointStatus,
    ContainerTarget,
    Job,
    JobKind,
    JobSpec,
)
from controlplane.store.requests import Idempotency, NewJob
from controlplane.store.secrets import Sealer

_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Making:
    """What is about to be made: the node's order, the rows, and what their images are named by."""

    job_id: str
    cluster: str
    node: str
    spec: CheckpointSpec
    checkpoints: tuple[Checkpoint, ...]
    sources: tuple[PushSource, ...]
    template: dict[str, Any] | None = None


def plan(
    command: CheckpointCommand,
    cluster: str,
    pod: FoundPod,
    actor: Actor,
    template: dict[str, Any] | None = None,
) -> Making:
    """Everything about the checkpoints of a pod that was found; ``template``: what it is made of.

    Raises:
        NotFound, Refused: the container; see ``containers.choose``.
    """
    chosen = containers.choose(pod, command.pod_name, command.container_name, template)
    job_id = clock.new_ulid()
    made = tuple(
        msgspec.structs.replace(
            _row(command, (cluster, job_id), pod, container, actor),
            warnings=probing.impatience(template, container.name),
        )
        for container in chosen
    )
    several = len(containers.declared(pod, template) | {one.name for one in chosen}) > 1
    sources = tuple(pushing.source_of(checkpoint, is_one_of_several=several) for checkpoint in made)
    return Making(job_id, cluster, pod.node, _spec(command, pod, made), made, sources, template)


def _spec(
    command: CheckpointCommand, pod: FoundPod, made: tuple[Checkpoint, ...]
) -> CheckpointSpec:
    """What the node is told to do."""
    return CheckpointSpec(
        namespace=command.namespace,
        pod_name=command.pod_name,
        pod_uid=pod.pod_uid,
        containers=tuple(
            ContainerTarget(
                checkpoint_id=checkpoint.id,
                container_name=checkpoint.container_name,
                container_id=checkpoint.container_id,
            )
            for checkpoint in made
        ),
        engine=command.engine,
        leave_running=command.leave_running,
        timeout_s=command.timeout_s or _TIMEOUT_S,
        strict=command.strict,
    )


def job(
    made: Making,
    actor: Actor,
    key: Idempotency | None,
    sealer: Sealer,
    push: PushPlan | None = None,
) -> NewJob:
    """The job that makes them, and pushes them if ``push`` says where to."""

    def also_write(db: Database, stored: Job) -> None:
        for checkpoint in made.checkpoints:
            rows.insert(db, checkpoint)
        if made.template is not None:
            podtemplates.keep(sealer, db, made.job_id, made.template)
        if push is not None:
            pushing.sealing(push, sealer)(db, stored)

    pushes = push.pushes if push else ()
    return NewJob(
        kind=JobKind.CHECKPOINT_AND_PUSH if push else JobKind.CHECKPOINT,
        cluster=made.cluster,
        node=made.node,
        spec=JobSpec(checkpoint=made.spec, pushes=pushes),
        actor=actor,
        task_name=_task_name(actor, push),
        namespace=made.spec.namespace,
        job_id=made.job_id,
        idempotency=key,
        also_write=also_write,
    )


def _task_name(actor: Actor, push: PushPlan | None) -> str:
    """The names by which clients of the older server know what is going on."""
    if actor.initiator == "SnapWatcher":
        return "SnapWatcher Checkpoint"
    return "Create and Push Checkpoint Container" if push else "Create Checkpoint"


def _row(
    command: CheckpointCommand,
    place: tuple[str, str],
    pod: FoundPod,
    container: FoundContainer,
    actor: Actor,
) -> Checkpoint:
    cluster, job_id = place
    checkpoint_id = clock.new_ulid()
    return Checkpoint(
        id=checkpoint_id,
        job_id=job_id,
        cluster=cluster,
        node=pod.node,
        namespace=command.namespace,
        pod_name=command.pod_name,
        pod_uid=pod.pod_uid,
        container_name=container.name,
        container_id=container.container_id,
        filename=naming.filename(command.pod_name, checkpoint_id),
        status=CheckpointStatus.PENDING,
        owner=actor.username,
        created_at=clock.now(),
        image_ref=container.image_ref,
        labels_json=msgspec.json.encode(dict(pod.labels)).decode(),
        restore_mode=command.restore_mode,
    )
