"""Archives that users upload: checkpoints that no node of ours made.

They may be downloaded and pushed. No namespace may restore their images until an administrator
shares them: whoever wrote an archive decided what a restored process would be.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
from sqlite_utils import Database

from controlplane import errors, permissions
from controlplane.archives.shelf import ArchiveShelf, Received, Receiving
from controlplane.checkpoints import naming
from controlplane.checkpoints.ports import Clusters
from controlplane.errors import Denied, NotFound
from controlplane.identity import Actor, Role
from controlplane.store import checkpoints as rows
from controlplane.store import clock, jobs
from controlplane.store.database import Store
from controlplane.store.records import (
    Checkpoint,
    CheckpointStatus,
    ImportSpec,
    JobKind,
    Place,
)

_DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True, slots=True)
class UploadCommand:
    """Take an archive in. What is empty is read from the archive, or found out.

    Attributes:
        size_bytes: of the request, as the client announced it; 0: it did not.
    """

    pod_name: str
    namespace: str = ""
    container_name: str = ""
    cluster_name: str = ""
    size_bytes: int = 0


class Upload:
    """One upload: ``write`` every piece, then ``finish``."""

    def __init__(self, checkpoint: Checkpoint, receiving: Receiving, store: Store) -> None:
        self._checkpoint = checkpoint
        self._receiving = receiving
        self._store = store

    async def write(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises:
            Refused: it is too large, or the disk is full.
        """
        await self._receiving.write(piece)

    async def finish(self, actor: Actor) -> Checkpoint:
        """Check the archive, and store that it is here.

        Raises:
            Refused: it is no checkpoint's archive, or could do harm.
            Denied: it is of a namespace in which the actor may not act.
        """
        stored = _described(self._checkpoint, await self._receiving.finish())
        permissions.require_namespace(actor, stored.namespace)
        await self._store.write(lambda db: rows.insert(db, stored))
        self._receiving.keep()
        return stored


class Uploads:
    """What was uploaded. ``open`` before the first request."""

    def __init__(self, store: Store, shelf: ArchiveShelf, clusters: Clusters) -> None:
        self._store = store
        self._shelf = shelf
        self._clusters = clusters

    @asynccontextmanager
    async def receiving(self, command: UploadCommand, actor: Actor) -> AsyncIterator[Upload]:
        """Take an archive in during the block; if it is not finished, nothing of it is left.

        Raises:
            Denied: viewers don't upload, others only for namespaces in which they may act.
            NotFound: CLUSTER_NOT_FOUND.
            Refused: PAYLOAD_TOO_LARGE, INSUFFICIENT_STORAGE.
        """
        if not actor.has(Role.OPERATOR):
            raise Denied("Only operators and administrators can upload checkpoints.")
        if command.namespace:
            permissions.require_namespace(actor, command.namespace)
        checkpoint_id = clock.new_ulid()
        checkpoint = Checkpoint(
            id=checkpoint_id,
            job_id="",
            cluster=await self._cluster(command.cluster_name),
            node="",
            namespace=command.namespace,
            pod_name=command.pod_name,
            container_name=command.container_name,
            filename=naming.filename(command.pod_name, checkpoint_id),
            status=CheckpointStatus.COMPLETED,
            owner=actor.username,
            created_at=clock.now(),
            place=Place.UPLOADED,
        )
        async with self._shelf.receiving(checkpoint_id, command.size_bytes) as receiving:
            yield Upload(checkpoint, receiving, self._store)

    def read(self, found: Checkpoint, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """Bytes of an uploaded archive; ``length`` 0: to the end."""
        return self._shelf.read(found.id, offset, length)

    async def delete(self, found: Checkpoint) -> None:
        """Remove an uploaded archive from the disk."""
        await self._shelf.delete(found.id)

    async def fetch(
        self, transfer_id: str, cluster: str, offset: int
    ) -> tuple[int, AsyncGenerator[bytes, None]]:
        """An archive for the node that imports it: (size of the whole, bytes from ``offset``).

        Args:
            transfer_id: the import job's id; cluster: of the agent that asks.

        Raises:
            NotFound: no such job goes on in that cluster, or its archive is gone.
        """

        def find(db: Database) -> Checkpoint | None:
            job = jobs.find(db, transfer_id) if clock.is_ulid(transfer_id) else None
            if job is None or job.kind is not JobKind.IMPORT or job.cluster != cluster:
                return None
            spec = job.spec.import_
            return rows.find(db, spec.checkpoint_id) if spec and not job.is_ended else None

        found = await self._store.read(find)
        if found is None or not found.is_uploaded or found.status is CheckpointStatus.DELETED:
            raise NotFound("There is no such upload.", code=errors.CHECKPOINT_NOT_FOUND)
        return found.size_bytes, self._shelf.read(found.id, offset)

    async def _cluster(self, name: str) -> str:
        """The cluster that was named, or the only one; "" when it is not clear: it is asked later."""
        if name:
            return await self._clusters.resolve(name, "")
        try:
            return await self._clusters.resolve("", "")
        except errors.Refused:
            return ""


def import_spec(found: Checkpoint, job_id: str) -> ImportSpec:
    """What a node is told of an uploaded archive."""
    return ImportSpec(
        checkpoint_id=found.id,
        transfer_id=job_id,
        size_bytes=found.size_bytes,
        pod_name=found.pod_name,
        namespace=found.namespace,
        container_name=found.container_name,
        sha256=found.sha256 or "",
        created_at=found.created_at,
    )


def _described(checkpoint: Checkpoint, received: Received) -> Checkpoint:
    said = received.contents
    return msgspec.structs.replace(
        checkpoint,
        namespace=checkpoint.namespace or said.namespace or _DEFAULT_NAMESPACE,
        container_name=checkpoint.container_name or said.container_name or checkpoint.pod_name,
        container_id=said.container_id,
        engine=said.engine,
        size_bytes=received.size_bytes,
        sha256=received.sha256,
        image_ref=said.image_ref,
        template_json=said.template_json,
        fingerprint_json=said.fingerprint_json,
        criu_options=said.criu_options,
        completed_at=clock.now(),
    )
