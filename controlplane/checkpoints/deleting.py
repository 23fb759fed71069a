"""Deleting a checkpoint: its images' manifests, then its parts on the node, or what was uploaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlite_utils import Database

from controlplane.checkpoints.outcomes import mark_deleted
from controlplane.checkpoints.ports import Announcer, Jobs, Nodes, Registries
from controlplane.checkpoints.uploads import Uploads
from controlplane.errors import Conflict
from controlplane.identity import Actor
from controlplane.store import audit
from controlplane.store import checkpoints as rows
from controlplane.store.audit import AuditEntry
from controlplane.store.database import Store
from controlplane.store.records import Checkpoint, CheckpointStatus, Job, JobKind, JobSpec
from controlplane.store.requests import NewJob

_BUSY: Final = frozenset({CheckpointStatus.PENDING, CheckpointStatus.RUNNING})


@dataclass(frozen=True, slots=True)
class Deleting:
    """Deletes checkpoints, wherever what is of them lies."""

    store: Store
    jobs: Jobs
    nodes: Nodes
    registries: Registries
    announcer: Announcer
    uploads: Uploads

    async def delete(self, found: Checkpoint, actor: Actor, *, keep_image: bool) -> Job | None:
        """Delete ``found``; returns the node's job, None when nothing lay there.

        Raises:
            Conflict: it is pinned, or being made.
            AgentUnavailable: its parts lie on a node whose agent is away.
            Failed: a registry did not delete the manifest.
        """
        if found.pinned:
            raise Conflict(f"Checkpoint {found.id} is pinned; unpin it first.")
        if found.status in _BUSY:
            raise Conflict(f"Checkpoint {found.id} is being made; cancel job {found.job_id} first.")
        if found.local:  # first of all: a half-deleted checkpoint helps nobody
            self.nodes.require(found.cluster, found.node)
        if not keep_image:
            await self._delete_images(found)
        entry = audit.deed(actor, "checkpoint deleted", f"checkpoint/{found.id}")
        if not found.local:
            await self._forget(found, entry)
            return None
        return await self.jobs.start(
            NewJob(
                kind=JobKind.DELETE,
                cluster=found.cluster,
                node=found.node,
                spec=JobSpec(checkpoint_ids=(found.id,)),
                actor=actor,
                task_name="Delete Checkpoint",
                namespace=found.namespace,
                also_write=lambda db, _: audit.write(db, entry),
            )
        )

    async def _forget(self, found: Checkpoint, entry: AuditEntry) -> None:
        def forget(db: Database) -> None:
            mark_deleted(db, found.id)
            audit.write(db, entry)

        await self.store.write(forget)
        if found.is_uploaded:
            await self.uploads.delete(found)
        await self.announcer.removed(found.cluster)

    async def _delete_images(self, found: Checkpoint) -> None:
        for image in found.images:
            shared = await self.store.read(
                lambda db, digest=image.digest: rows.images_with_digest(db, digest)  # type: ignore[misc]
            )
            if image.registry and all(other.checkpoint_id == found.id for other in shared):
                repository = image.repository.partition("/")[2]
                await self.registries.delete_manifest(image.registry, repository, image.digest)
            await self.store.write(lambda db, gone=image: rows.delete_image(db, gone))  # type: ignore[misc]
