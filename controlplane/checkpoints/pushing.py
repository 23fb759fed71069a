"""From checkpoints to the pushes that a node is told to do: registry, repository, tag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from sqlite_utils import Database

from controlplane.checkpoints import destinations, naming
from controlplane.checkpoints.commands import PushTarget
from controlplane.errors import Refused
from controlplane.store.records import Checkpoint, Job, PushSpec, RegistryAccess
from controlplane.store.requests import AlsoWrite
from controlplane.store.secrets import Sealer

_COMPRESSIONS = frozenset({"zstd", "gzip", "none"})


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
