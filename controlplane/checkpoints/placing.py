"""Bringing images to nodes before they are needed, nodes into shape, and images' names to and fro."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlite_utils import Database

from controlplane import permissions
from controlplane.checkpoints import destinations, lookup, naming
from controlplane.checkpoints.commands import PushTarget
from controlplane.checkpoints.ports import Clusters, Jobs, Nodes
from controlplane.errors import Conflict
from controlplane.identity import Actor
from controlplane.store import checkpoints as rows
from controlplane.store import registries
from controlplane.store.database import Store
from controlplane.store.records import Checkpoint, FetchSpec, Image, Job, JobKind, JobSpec
from controlplane.store.requests import NewJob


@dataclass(frozen=True, slots=True)
class NamedImage:
    """A pod's image by the naming scheme: ``<host>/<repository>:<tag>``; ``known`` if it was pushed."""

    name: str
    known: Image | None


class Placing:
    """What is done for restores to come."""

    def __init__(self, store: Store, jobs: Jobs, nodes: Nodes, clusters: Clusters) -> None:
        self._store = store
        self._jobs = jobs
        self._nodes = nodes
        self._clusters = clusters

    async def prefetch(self, checkpoint: str, nodes: Sequence[str], actor: Actor) -> list[Job]:
        """Have nodes of the checkpoint's cluster fetch its newest image; one job for each node.

        Raises:
            NotFound: CHECKPOINT_NOT_FOUND, NODE_NOT_FOUND.
            Denied: the actor may not act in its namespace.
            Conflict: it has no image that a registry config leads to.
            AgentUnavailable: the agent of one of the nodes is away; nothing was started.
        """
        found, fetch = await self._store.read(lambda db: _fetchable(db, checkpoint))
        permissions.require_namespace(actor, found.namespace)
        if fetch is None:
            what = "that a registry config leads to" if found.images else "yet"
            raise Conflict(f"Checkpoint {found.id} has no image {what}; push it first.")
        for node in nodes:  # all or none
            self._nodes.require(found.cluster, node)
        return [
            await self._jobs.start(
                NewJob(
                    kind=JobKind.PREFETCH,
                    cluster=found.cluster,
                    node=node,
                    spec=JobSpec(fetches=(fetch,)),
                    actor=actor,
                    task_name="Fetch Checkpoint Image",
                    namespace=found.namespace,
                )
            )
            for node in nodes
        ]

    async def prepare(self, cluster: str, node: str, actor: Actor, *, undo: bool) -> Job:
        """Have a node prepared for restores, or undo that.

        Args:
            cluster: empty for the only one.

        Raises:
            NotFound: CLUSTER_NOT_FOUND, NODE_NOT_FOUND.
            AgentUnavailable: its agent is away.
        """
        name = await self._clusters.resolve(cluster)
        return await self._jobs.start(
            NewJob(
                kind=JobKind.PREPARE,
                cluster=name,
                node=node,
                spec=JobSpec(undo=undo),
                actor=actor,
                task_name="Prepare Node",
            )
        )

    async def image_of(self, cluster: str, source: naming.Source) -> NamedImage:
        """How the image of a pod's container is called, and whether it was pushed.

        Without the digest of the running container, the newest image of the same app counts.

        Raises:
            NotFound: CLUSTER_NOT_FOUND; REGISTRY_NOT_FOUND, the cluster has none.
        """
        name = await self._clusters.resolve(cluster)

        def read(db: Database) -> NamedImage:
            place = destinations.resolve(db, PushTarget(), name)
            made = naming.place(source, place.prefix)
            full = f"{place.registry.host}/{made.repository}:{made.tag}"
            known = rows.newest_image(db, full, name)
            if known is None and naming.digest12(source.image_id) == "no-digest":
                known = rows.newest_image(db, f"{place.registry.host}/{made.repository}:", name)
            return NamedImage(known.image if known else full, known)

        return await self._store.read(read)


def _fetchable(db: Database, named: str) -> tuple[Checkpoint, FetchSpec | None]:
    """A checkpoint, and how its newest image is fetched with a registry config that is stored.

    What was pushed with credentials of its own is fetched with those of the config of its host.
    """
    found = lookup.find(db, named)
    of_host = {row.host: row.name for row in registries.everything(db)}
    for image in found.images:
        registry = image.registry or of_host.get(image.image.partition("/")[0], "")
        if registry:
            spec = FetchSpec(checkpoint_id=found.id, image=image.reference, registry=registry)
            return found, spec
    return found, None
