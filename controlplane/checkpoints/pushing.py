"""From checkpoints to the pushes that a node is told to do: registry, repository, tag; and which node does them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
from sqlite_utils import Database

from controlplane import errors
from controlplane.checkpoints import destinations, naming
from controlplane.checkpoints.commands import PushTarget
from controlplane.checkpoints.ports import Nodes
from controlplane.checkpoints.uploads import import_spec
from controlplane.errors import AgentUnavailable, Conflict, NotFound, Refused
from controlplane.identity import Actor
from controlplane.store import checkpoints as rows
from controlplane.store import clock
from controlplane.store.database import Store
from controlplane.store.records import (
    Checkpoint,
    CheckpointStatus,
    Job,
    JobKind,
    JobSpec,
    PushSpec,
    RegistryAccess,
)
from controlplane.store.requests import AlsoWrite, NewJob
from controlplane.store.secrets import Sealer

_COMPRESSIONS: Final = frozenset({"zstd", "gzip", "none"})
_TASK: Final = "Create and Push Checkpoint Container"


@dataclass(frozen=True, slots=True)
class PushSource:
    """A checkpoint to push, and what its image is named by."""

    checkpoint_id: str
    named_by: naming.Source


@dataclass(frozen=True, slots=True)
class PushPlan:
    """The pushes of a job; ``access`` came with the request and is sealed with the job."""

    pushes: tuple[PushSpec, ...]
    access: RegistryAccess | None = field(default=None, repr=False)


def source_of(checkpoint: Checkpoint, *, is_one_of_several: bool = False) -> PushSource:
    """What the image of ``checkpoint`` is named by."""
    named_by = naming.Source(
        cluster=checkpoint.cluster,
        namespace=checkpoint.namespace,
        pod_name=checkpoint.pod_name,
        container_name=checkpoint.container_name,
        image_id=checkpoint.image_ref,
        labels=msgspec.json.decode(checkpoint.labels_json, type=dict[str, str]),
        is_one_of_several=is_one_of_several,
    )
    return PushSource(checkpoint.id, named_by)


def plan(db: Database, target: PushTarget, sources: Sequence[PushSource], cluster: str) -> PushPlan:
    """Where each of ``sources`` goes.

    A tag that the request names is given as it is to one checkpoint; of several, each gets its
    container's name appended.

    Raises:
        NotFound: REGISTRY_NOT_FOUND.
        Refused: the compression is none that we have.
    """
    if target.compression not in _COMPRESSIONS:
        raise Refused("compression must be zstd, gzip or none.")
    destination = destinations.resolve(db, target, cluster)
    access = destinations.access_given(target, destination.registry)
    pushes = []
    for source in sources:
        named_by = source.named_by
        if target.tag and len(sources) == 1:
            named_by = naming.alone(named_by)
        place = naming.place(named_by, destination.prefix, target.image_name, target.tag)
        pushes.append(
            PushSpec(
                checkpoint_id=source.checkpoint_id,
                registry="" if access else destination.registry.name,
                host=destination.registry.host,
                repository=place.repository,
                tag=place.tag,
                compression=target.compression,
            )
        )
    return PushPlan(tuple(pushes), access)


def sealing(push: PushPlan, sealer: Sealer) -> AlsoWrite:
    """What else the job's transaction writes: the access that came with the request, sealed."""

    def also_write(db: Database, job: Job) -> None:
        if push.access is not None:
            sealer.put(db, f"job/{job.id}", msgspec.json.encode(push.access))

    return also_write


class Pushing:
    """Jobs that push a checkpoint which is there already."""

    def __init__(self, store: Store, sealer: Sealer, nodes: Nodes) -> None:
        self._store = store
        self._sealer = sealer
        self._nodes = nodes

    async def job(self, found: Checkpoint, target: PushTarget, actor: Actor) -> NewJob:
        """The job that pushes ``found`` to ``target``; it is not started.

        Raises:
            NotFound: REGISTRY_NOT_FOUND, CLUSTER_NOT_FOUND.
            Conflict: it is not complete, or its parts are gone.
            AgentUnavailable: no node is there to push what was uploaded.
        """
        if found.is_uploaded:
            return await self._of_uploaded(found, target, actor)
        if found.status is not CheckpointStatus.COMPLETED or not found.local:
            raise Conflict(f"Checkpoint {found.id} is {found.status}; it can't be pushed.")
        sources = (source_of(found),)
        planned = await self._store.read(lambda db: plan(db, target, sources, found.cluster))
        return NewJob(
            kind=JobKind.PUSH,
            cluster=found.cluster,
            node=found.node,
            spec=JobSpec(pushes=planned.pushes),
            actor=actor,
            task_name=_TASK,
            namespace=found.namespace,
            also_write=sealing(planned, self._sealer),
        )

    async def _of_uploaded(self, found: Checkpoint, target: PushTarget, actor: Actor) -> NewJob:
        """Have any agent of the checkpoint's cluster take the archive in and push it."""
        cluster, node = self._node_for(found)
        source = source_of(msgspec.structs.replace(found, cluster=cluster))
        planned = await self._store.read(lambda db: plan(db, target, (source,), cluster))
        seal, job_id = sealing(planned, self._sealer), clock.new_ulid()

        def also_write(db: Database, job: Job) -> None:
            seal(db, job)
            now = rows.find(db, found.id) or found
            rows.update(db, msgspec.structs.replace(now, cluster=cluster))

        return NewJob(
            kind=JobKind.IMPORT,
            cluster=cluster,
            node=node,
            spec=JobSpec(
                pushes=planned.pushes,
                import_=import_spec(found, job_id),
                checkpoint_ids=(found.id,),  # leaves the node after the push
            ),
            actor=actor,
            task_name=_TASK,
            namespace=found.namespace,
            job_id=job_id,
            also_write=also_write,
        )

    def _node_for(self, found: Checkpoint) -> tuple[str, str]:
        """(cluster, node) of an agent that may take an uploaded checkpoint in."""
        nodes = self._nodes.reachable(found.cluster)
        if not nodes:
            of_cluster = f" of cluster {found.cluster}" if found.cluster else ""
            raise AgentUnavailable(
                f"No agent{of_cluster} is connected that could push checkpoint {found.id}; "
                "nothing was started.",
                after_s=15,
            )
        if any(cluster != nodes[0][0] for cluster, _ in nodes):
            raise NotFound(
                f"Checkpoint {found.id} was uploaded for no cluster, and there are several; upload "
                "it with cluster_name.",
                code=errors.CLUSTER_NOT_FOUND,
            )
        return nodes[0]
