"""Where a checkpoint's archive comes from: this server's disk, its node, or an image that another node fetches."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import msgspec
from sqlite_utils import Database

from controlplane import errors
from controlplane.checkpoints.commands import Archive
from controlplane.checkpoints.ports import Jobs, Nodes
from controlplane.checkpoints.uploads import Uploads
from controlplane.errors import AgentUnavailable, Failed, NotFound, Retryable, SnapError
from controlplane.identity import Actor
from controlplane.store import checkpoints as rows
from controlplane.store.database import Store
from controlplane.store.records import (
    Checkpoint,
    FetchSpec,
    Image,
    Job,
    JobKind,
    JobSpec,
    JobState,
)
from controlplane.store.requests import NewJob

_REBUILD_S: Final = 600.0  # for a node to fetch an image; it goes on afterwards, for the next try
Part = tuple[int, int]  # offset and length; length 0: to the end


class Downloads:
    """Opens archives, wherever they are."""

    def __init__(self, store: Store, uploads: Uploads, nodes: Nodes, jobs: Jobs) -> None:
        self._store = store
        self._uploads = uploads
        self._nodes = nodes
        self._jobs = jobs

    async def open(self, found: Checkpoint, part: Part, actor: Actor) -> Archive:
        """The archive of ``found``; the same etag always means the same bytes.

        Raises:
            AgentUnavailable: neither its node nor one that could rebuild it is connected.
            NotFound: it is nowhere any more.
        """
        if found.is_uploaded:
            body = self._uploads.read(found, *part)
            return Archive(found.size_bytes, found.sha256 or found.id, body)
        try:
            return await self._from_node(found, part)
        except (AgentUnavailable, NotFound) as gone:
            return await self._rebuilt(found, part, actor, gone)

    async def _from_node(self, found: Checkpoint, part: Part) -> Archive:
        if not found.local:
            raise NotFound(
                f"The parts of checkpoint {found.id} are not on node {found.node} any more.",
                code=errors.CHECKPOINT_NOT_FOUND,
            )
        node = found.cluster, found.node
        size_bytes, body = await self._nodes.open_archive(node, found.id, *part)
        if part == (0, 0) and found.sha256 is None:
            body = self._hashed(found, size_bytes, body)
        # its parts don't change, and the archive is made of them the same way each time
        return Archive(size_bytes, f"{found.id}-{found.revision}", body)

    async def _rebuilt(
        self, found: Checkpoint, part: Part, actor: Actor, gone: SnapError
    ) -> Archive:
        """The archive that another node makes of the checkpoint's image."""
        image = next((image for image in found.images if image.registry), None)
        if image is None:
            raise gone
        nodes = self._nodes.reachable(found.cluster)
        if not nodes:
            raise AgentUnavailable(
                f"Checkpoint {found.id} can't be read: node {found.node} does not have it or is "
                f"away, and no agent of cluster {found.cluster} is connected that could fetch "
                f"{image.reference}. Try again when one is.",
                after_s=15,
            )
        node = nodes[0]  # the same one for each part, so that it fetches once
        try:
            return await self._of_image(node, image, part)
        except NotFound:
            await self._fetch(node, found, image, actor)
        return await self._of_image(node, image, part)

    async def _of_image(self, node: tuple[str, str], image: Image, part: Part) -> Archive:
        size_bytes, body = await self._nodes.open_image(node, image.digest, *part)
        return Archive(size_bytes, f"image-{image.digest.removeprefix('sha256:')}", body)

    async def _fetch(
        self, node: tuple[str, str], found: Checkpoint, image: Image, actor: Actor
    ) -> None:
        """Have the image in the node's cache.

        Raises:
            Failed: it could not be fetched. Retryable: it takes too long.
        """
        spec = FetchSpec(checkpoint_id=found.id, image=image.reference, registry=image.registry)
        job = await self._jobs.start(
            NewJob(
                kind=JobKind.FETCH,
                cluster=node[0],
                node=node[1],
                spec=JobSpec(fetches=(spec,)),
                actor=actor,
                task_name="Rebuild Checkpoint Archive",
                namespace=found.namespace,
            )
        )
        job = await self._jobs.wait(job.id, _REBUILD_S)
        if job.state is not JobState.COMPLETED:
            raise _not_fetched(job, node[1], image)

    async def _hashed(
        self, found: Checkpoint, size_bytes: int, body: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[bytes, None]:
        """``body``, whose SHA-256 is known once all of it went by."""
        made, passed = hashlib.sha256(), 0
        async with aclosing(body):
            async for piece in body:
                await asyncio.to_thread(made.update, piece)
                passed += len(piece)
                if passed == size_bytes:
                    await self._store.write(lambda db: _note(db, found, made.hexdigest()))
                yield piece


def _note(db: Database, found: Checkpoint, sha256: str) -> None:
    now = rows.find(db, found.id)
    if now is not None and now.revision == found.revision:
        rows.update(db, msgspec.structs.replace(now, sha256=sha256))


def _not_fetched(job: Job, node: str, image: Image) -> SnapError:
    if not job.is_ended:
        return Retryable(f"Node {node} still fetches {image.reference}; try again.", after_s=30)
    if job.error is not None:
        return Failed(job.error.message, code=job.error.code, details=job.error.details)
    return Failed(
        f"Node {node} did not fetch {image.reference}: job {job.id} was cancelled.",
        code=errors.CONFLICT,
    )
