"""Checkpoints as use cases: make, push, list, download, pin, share, delete."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from sqlite_utils import Database

from controlplane import permissions
from controlplane.checkpoints import lookup, making, pushing
from controlplane.checkpoints.commands import (
    Archive,
    ArchiveSize,
    CheckpointCommand,
    CheckpointFilter,
    CheckpointPage,
    PushTarget,
)
from controlplane.checkpoints.deleting import Deleting
from controlplane.checkpoints.downloads import Downloads
from controlplane.checkpoints.grants import Grants
from controlplane.checkpoints.ports import (
    Announcer,
    Clusters,
    FoundPod,
    Jobs,
    Nodes,
    Registries,
    Templates,
)
from controlplane.checkpoints.pushing import Pushing
from controlplane.checkpoints.uploads import Uploads
from controlplane.errors import Conflict, Denied
from controlplane.identity import Actor, Role
from controlplane.store import audit, restores, starts
from controlplane.store import checkpoints as rows
from controlplane.store.database import Store
from controlplane.store.records import Checkpoint, CheckpointStatus, Job, Restore
from controlplane.store.requests import Idempotency
from controlplane.store.secrets import Sealer


class CheckpointService:
    """What can be done with checkpoints. ``attach`` the nodes before the first request."""

    def __init__(
        self,
        store: Store,
        sealer: Sealer,
        grants: Grants,
        clusters: Clusters,
        templates: Templates | None = None,
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._grants = grants
        self._clusters = clusters
        self._templates = templates
        self._jobs: Jobs
        self._nodes: Nodes
        self._announcer: Announcer
        self._pushing: Pushing
        self._deleting: Deleting
        self._downloads: Downloads

    def attach(
        self,
        jobs: Jobs,
        nodes: Nodes,
        registries: Registries,
        announcer: Announcer,
        uploads: Uploads,
    ) -> None:
        """Plug in the neighbours."""
        self._jobs, self._nodes, self._announcer = jobs, nodes, announcer
        self._pushing = Pushing(self._store, self._sealer, nodes)
        self._deleting = Deleting(self._store, jobs, nodes, registries, announcer, uploads)
        self._downloads = Downloads(self._store, uploads, nodes, jobs)

    async def checkpoint(self, command: CheckpointCommand, actor: Actor) -> Job:
        """Start a checkpoint; the job's checkpoints are listed at once, as pending.

        Raises:
            Denied: the actor may not act in the namespace.
            NotFound: CLUSTER_, NODE_, POD_ or CONTAINER_NOT_FOUND.
            Refused: something is missing, or the container is not running.
            AgentUnavailable: the node's agent is away; nothing was stored.
        """
        return await self._make(command, None, actor)

    async def checkpoint_and_push(
        self, command: CheckpointCommand, target: PushTarget, actor: Actor
    ) -> Job:
        """Start a checkpoint whose image is pushed right after it.

        Raises:
            SnapError: as ``checkpoint``, and REGISTRY_NOT_FOUND.
        """
        return await self._make(command, target, actor)

    async def push_existing(
        self, named: str, pod_name: str, target: PushTarget, actor: Actor
    ) -> Job:
        """Push a checkpoint that lies on its node, or was uploaded.

        An uploaded one goes to a node first, which checks it again, and leaves it after the push.

        Args:
            named: its id, file name or name, or ``<pod>-checkpoint`` for the pod's newest.
            pod_name: empty for any.

        Raises:
            NotFound: CHECKPOINT_NOT_FOUND, REGISTRY_NOT_FOUND.
            Conflict: it is not complete, or its parts are gone.
            AgentUnavailable: the node's agent is away.
        """
        found = await self._find(named, pod_name)
        permissions.require_namespace(actor, found.namespace)
        return await self._jobs.start(await self._pushing.job(found, target, actor))

    async def list(
        self,
        wanted: CheckpointFilter,
        actor: Actor,  # noqa: ARG002 - everybody who may log in sees that checkpoints exist
        limit: int = 1000,
        cursor: str | None = None,
    ) -> CheckpointPage:
        """Checkpoints, newest first; deleted ones only when asked for."""
        equal = {
            "cluster": wanted.cluster_name,
            "namespace": wanted.namespace,
            "pod_name": wanted.pod_name,
            "status": wanted.status or "",
        }
        used = {column: value for column, value in equal.items() if value}

        def read(db: Database) -> CheckpointPage:
            found, after = rows.page(db, used, limit, cursor)
            return CheckpointPage(tuple(found), after, starts.of_checkpoints(db, found))

        return await self._store.read(read)

    def revision(self) -> int:
        """Another number after any checkpoint, image of one, or start of a workload of one, changed."""
        return self._store.revisions.of("checkpoints", "images", "workloads", "starts")

    async def get(self, named: str, actor: Actor) -> Checkpoint:  # noqa: ARG002 - as in list
        """The checkpoint of this id, file name or name.

        Raises:
            NotFound: CHECKPOINT_NOT_FOUND.
        """
        return await self._find(named, "")

    async def restores(self, checkpoint: Checkpoint) -> tuple[int, Restore | None]:
        """How many containers were started from its images, or were to be, and the latest of them."""
        digests = [image.digest for image in checkpoint.images if image.digest]
        return await self._store.read(lambda db: restores.of_digests(db, digests))

    async def of_job(self, job_id: str) -> Sequence[Checkpoint]:
        """The checkpoints that a job made, in the order of its containers."""
        return await self._store.read(lambda db: rows.of_job(db, job_id))

    async def count(self) -> int:
        """How many checkpoints there are."""
        return await self._store.read(rows.count)

    async def delete(
        self, checkpoint_id: str, actor: Actor, *, keep_image: bool = False
    ) -> Job | None:
        """Delete a checkpoint: its images' manifests (unless kept), then its parts on the node.

        Returns:
            The node's job; None when nothing lay there.

        Raises:
            Conflict: it is pinned, or being made.
            AgentUnavailable: its parts lie on a node whose agent is away.
            Failed: a registry did not delete the manifest.
        """
        found = await self._find(checkpoint_id, "")
        permissions.require_namespace(actor, found.namespace)
        return await self._deleting.delete(found, actor, keep_image=keep_image)

    async def pin(self, checkpoint_id: str, actor: Actor, *, pinned: bool = True) -> Checkpoint:
        """Keep a checkpoint from being deleted, or no longer.

        Raises:
            NotFound: CHECKPOINT_NOT_FOUND.
        """
        found = await self._find(checkpoint_id, "")
        permissions.require_namespace(actor, found.namespace)

        def run(db: Database) -> Checkpoint:
            now = rows.find(db, found.id) or found
            changed = msgspec.structs.replace(now, pinned=pinned)
            rows.update(db, changed)
            return changed

        return await self._store.write(run)

    async def share(
        self, checkpoint_id: str, namespaces: Sequence[str], actor: Actor
    ) -> Checkpoint:
        """Let pods of more namespaces restore a checkpoint's images; for administrators.

        Raises:
            Denied: the actor is none.
            Conflict: it has no image yet.
        """
        if not actor.is_administrator:
            raise Denied("Only an administrator can share a checkpoint with other namespaces.")
        found = await self._find(checkpoint_id, "")
        if not found.images:
            raise Conflict(f"Checkpoint {found.id} has no image yet; push it first.")
        names = ",".join(namespaces)
        entry = audit.deed(
            actor,
            "checkpoint shared",
            f"checkpoint/{found.id}",
            details={"namespaces": names},
        )
        digests = sorted({image.digest for image in found.images})

        def run(db: Database) -> None:
            for digest in digests:
                about = (digest, found.cluster, found.id)
                self._grants.allow(db, about, namespaces, actor.username)
            audit.write(db, entry)

        await self._store.write(run)
        await self._announcer.added(found.cluster, digests)
        return found

    async def open_archive(
        self, pod_name: str, filename: str, actor: Actor, offset: int = 0, length: int = 0
    ) -> Archive:
        """A checkpoint's archive, streamed from its node as fast as it is read.

        Args:
            filename: or id; looked up, never a path.
            length: 0: to the end.

        Raises:
            Denied: viewers don't read memory.
            NotFound: CHECKPOINT_NOT_FOUND.
            AgentUnavailable: its node's agent is away.
        """
        found = await self._readable(pod_name, filename, actor)
        return await self._downloads.open(found, (offset, length), actor)

    async def archive_size(self, pod_name: str, filename: str, actor: Actor) -> ArchiveSize:
        """How large an archive is, for HEAD and ranges; raises as ``open_archive``."""
        found = await self._readable(pod_name, filename, actor)
        archive = await self._downloads.open(found, (0, 1), actor)
        async with aclosing(archive.body) as body:
            async for _ in body:  # a generator that never began would not tell the node to stop
                break
        return ArchiveSize(archive.size_bytes, archive.etag)

    async def _make(
        self, command: CheckpointCommand, target: PushTarget | None, actor: Actor
    ) -> Job:
        permissions.require_namespace(actor, command.namespace)
        key = _idempotency(command)
        first = await self._jobs.repeated(actor.username, key)
        if first is not None:
            return first
        cluster = await self._clusters.resolve(command.cluster_name, command.kube_api_address)
        pod = await self._nodes.find_pod(
            cluster, command.namespace, command.pod_name, command.node_name
        )
        made = making.plan(
            command, cluster, pod, actor, await self._template(cluster, command, pod)
        )
        if target is None:
            return await self._jobs.start(making.job(made, actor, key, self._sealer))
        plan = await self._store.read(lambda db: pushing.plan(db, target, made.sources, cluster))
        return await self._jobs.start(making.job(made, actor, key, self._sealer, plan))

    async def _template(
        self, cluster: str, command: CheckpointCommand, pod: FoundPod
    ) -> dict[str, Any] | None:
        if self._templates is None:
            return None
        return await self._templates.template(
            cluster, command.namespace, command.pod_name, pod.pod_uid
        )

    async def _readable(self, pod_name: str, filename: str, actor: Actor) -> Checkpoint:
        found = await self._find(filename, pod_name)
        if not actor.has(Role.OPERATOR):
            raise Denied("A checkpoint holds a process's memory; viewers can't read it.")
        permissions.require_namespace(actor, found.namespace)
        if found.status is not CheckpointStatus.COMPLETED:
            raise Conflict(f"Checkpoint {found.id} is {found.status}; there is no archive of it.")
        return found

    async def _find(self, named: str, pod_name: str) -> Checkpoint:
        return await self._store.read(lambda db: lookup.find(db, named, pod_name))


def _idempotency(command: CheckpointCommand) -> Idempotency | None:
    if not command.idempotency_key:
        return None
    return Idempotency(command.idempotency_key, hashlib.sha256(command.body).hexdigest())
