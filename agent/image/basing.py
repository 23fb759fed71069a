"""What a push need not send: the windows of a base, and all of an image that is there already.

The registry is the authority: a base's layers are taken from its manifest there, and it is asked
for each of them again before anything relies on it (``upload.LayerUpload``).
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from agent.errors import NotFound, Refused
from agent.formats import digest, layout, memory_chain, memory_delta, record
from agent.formats.record import CheckpointRecord
from agent.image import bases, comparison, compression, content, image_annotations, layers, manifest
from agent.image.backoff import Backoff, persist
from agent.image.bases import Base, Bases
from agent.image.compression import Codec
from agent.image.content import Blob, LayerPlan
from agent.image.download import small_blob
from agent.image.layers import Memory, Onto
from agent.image.reference import ImageReference
from agent.image.registry import Registry

_NO_PARTS: Final = Path("/nonexistent")  # a base of which only hashes are left is never read
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Pushed:
    """An image at the registry."""

    blobs: tuple[Blob, ...]
    parent: str


class Basing:
    """Finds out for one push what the registry has already."""

    def __init__(self, registry: Registry, repository: str, backoff: Backoff) -> None:
        self._registry, self._repository, self._backoff = registry, repository, backoff

    async def base(self, known: Bases, parts: Path) -> Onto | None:
        """What the checkpoint in ``parts`` is a delta of; its record says so afterwards.

        None: it is pushed whole, for there is no base or too much differs from it.

        Raises:
            Retryable: the registry went away and did not come back.
        """
        found = await asyncio.to_thread(_find, known, parts, self._registry.host)
        windows = await self._windows(found) if found else None
        if found is None or windows is None:
            await asyncio.to_thread(note_parent, parts, "")
            return None
        # from here on the base stays on the node: retention keeps parents
        await asyncio.to_thread(note_parent, parts, found.checkpoint_id)
        onto = await asyncio.to_thread(_lay, parts, found, windows)
        if onto is None:
            await asyncio.to_thread(note_parent, parts, "")
        return onto

    async def known(
        self, plans: Sequence[LayerPlan], codec: Codec, parts: Path, parent: str
    ) -> Sequence[LayerPlan]:
        """``plans`` with the blobs that they were when the same checkpoint was pushed before.

        Args:
            parent: of which checkpoint the plans are a delta.
        """
        mine = await asyncio.to_thread(record.read, parts)
        image = bases.at_host(mine, self._registry.host)
        if image is None or not await asyncio.to_thread(bases.is_as_pushed, parts, mine):
            return plans
        found = await self._describe(image)
        if found is None or found.parent != parent:
            return plans
        if [blob.unpacked_size for blob in found.blobs] != [plan.size for plan in plans]:
            return plans
        return [
            self._as_known(plan, blob, image)
            if plan.known is None and _is_wanted(blob, plan, codec)
            else plan
            for plan, blob in zip(plans, found.blobs, strict=True)
        ]

    async def _windows(self, base: Base) -> Sequence[LayerPlan] | None:
        """The base's windows as layers that are known; None: they are not there as they should be."""
        found = await self._describe(base.image)
        if found is None or found.parent:
            return None
        plans = await asyncio.to_thread(_windows_of, base)
        blobs = [blob for blob in found.blobs if blob.content == content.MEMORY][: len(plans)]
        if not plans or [blob.unpacked_size for blob in blobs] != [plan.size for plan in plans]:
            return None
        if base.parts is None:
            plans = [dataclasses.replace(plan, pieces=()) for plan in plans]
            if not all([await self._is_there(blob, base.image.repository) for blob in blobs]):
                return None
        return [
            self._as_known(plan, blob, base.image) for plan, blob in zip(plans, blobs, strict=True)
        ]

    async def _is_there(self, blob: Blob, source: str) -> bool:
        """Whether the repository has the blob, or can have it of ``source``."""
        registry, wanted = self._registry, blob.digest
        there = await persist(self._backoff, lambda: registry.has_blob(self._repository, wanted))
        if there or source == self._repository:
            return there
        return await persist(
            self._backoff, lambda: registry.mount(self._repository, wanted, source)
        )

    def _as_known(self, plan: LayerPlan, blob: Blob, image: ImageReference) -> LayerPlan:
        elsewhere = image.repository if image.repository != self._repository else ""
        return dataclasses.replace(plan, known=blob, known_in=elsewhere)

    async def _describe(self, image: ImageReference) -> _Pushed | None:
        """The image's layers; None: it is gone, or not one of ours."""
        registry, repository = self._registry, image.repository
        try:
            body, media_type = await persist(
                self._backoff, lambda: registry.manifest(repository, image.digest)
            )
            found = manifest.parse(body, media_type)
            configuration = await persist(
                self._backoff, lambda: small_blob(registry, repository, found.config)
            )
            diff_ids = manifest.diff_ids(configuration, len(found.layers))
        except (NotFound, Refused) as cause:
            _log.info("image %s can't be a base: %s", image, cause)
            return None
        blobs = tuple(
            Blob(
                media_type=layer.media_type,
                digest=digest.parse(layer.digest),
                size=layer.size,
                diff_id=diff_id,
                unpacked_size=_number(layer.annotations.get(image_annotations.UNPACKED_BYTES, "")),
                content=layer.annotations.get(image_annotations.CONTENT, ""),
            )
            for layer, diff_id in zip(found.layers, diff_ids, strict=True)
        )
        return _Pushed(blobs, found.annotations.get(image_annotations.PARENT, ""))


def _find(known: Bases, parts: Path, host: str) -> Base | None:
    return known.find(parts, record.read(parts), host)


def _windows_of(base: Base) -> list[LayerPlan]:
    try:
        chain = memory_chain.split(base.memory.maps, base.memory.window)
    except ValueError as cause:
        _log.info("checkpoint %s can't be a base: %s", base.checkpoint_id, cause)
        return []
    return layers.windows(base.parts or _NO_PARTS, chain)


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else -1


def _lay(parts: Path, base: Base, windows: Sequence[LayerPlan]) -> Onto | None:
    """Compare all pages with the base's; None: too much differs, or the base went away meanwhile."""
    memory = Memory.read(parts)
    folder = parts / layout.CHECKPOINT_DIR
    try:
        same = comparison.unchanged(folder, memory.maps, base.memory.maps, base.sources)
    except OSError as cause:
        _log.info("checkpoint %s can't be compared with: %s", base.checkpoint_id, cause)
        return None
    found = memory_delta.delta(memory.maps, base.memory.maps, base.memory.window, same)
    return None if found is None else Onto(found, windows)


def note_parent(parts: Path, parent: str) -> CheckpointRecord:
    """Have the record beside ``parts`` say what the checkpoint is a delta of; "" is nothing."""
    known = record.read(parts)
    if known.parent != parent:
        known = msgspec.structs.replace(known, parent=parent)
        record.write(parts, known)
    return known


def _is_wanted(blob: Blob, plan: LayerPlan, codec: Codec) -> bool:
    """Whether the layer would be made in this form again."""
    try:
        made = compression.codec_of(blob.media_type)
    except Refused:
        return False
    return made is codec or (made is Codec.NONE and plan.maybe_dense)
