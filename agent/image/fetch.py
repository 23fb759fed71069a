"""Fetching an image into a folder: manifest, configuration, metadata layer, then all others at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import NotFound, Refused
from agent.formats import record
from agent.formats.jobs import Progress, Report
from agent.image import image_annotations, manifest
from agent.image.backoff import Backoff, persist
from agent.image.download import LayerDownload, LayerReader, small_blob
from agent.image.manifest import Descriptor, Manifest
from agent.image.push import foremost
from agent.image.reference import ImageReference
from agent.image.registry import Registry
from agent.image.unpack import Budget, Unpacker, disk_errors

_UNDECLARED_FACTOR: Final = 200  # an image by others unpacks to at most this times its blobs …
_UNDECLARED_LEAST: Final = 1 << 30  # … or to this
_OVERHEAD: Final = 64 << 20  # tar headers and pagemaps made flat, beside what is declared


@dataclass(frozen=True, slots=True)
class Image:
    """An image, as far as its manifest and configuration tell."""

    reference: ImageReference
    manifest: Manifest

    @property
    def size(self) -> int:
        """Of all layers as they are at the registry, in bytes."""
        return sum(layer.size for layer in self.manifest.layers)

    @property
    def declared(self) -> bool:
        """Whether every layer says how large it unpacks."""
        return all(map(_declared, self.manifest.layers))

    @property
    def most_bytes(self) -> int:
        """More than this must not come out of it."""
        if self.declared:
            return sum(map(_declared, self.manifest.layers)) + _OVERHEAD
        return max(_UNDECLARED_LEAST, self.size * _UNDECLARED_FACTOR)

    @property
    def expected_bytes(self) -> int:
        """Room to make for it: as declared, else a guess."""
        return self.most_bytes if self.declared else 3 * self.size


def _declared(layer: Descriptor) -> int:
    text = layer.annotations.get(image_annotations.UNPACKED_BYTES, "")
    return int(text) if text.isdigit() and len(text) < 16 else 0


async def describe(registry: Registry, reference: ImageReference, backoff: Backoff) -> Image:
    """Read and check manifest and configuration.

    Raises:
        NotFound: there is no such image.
        Refused: it is damaged, or of a kind that is not read.
        Retryable: the registry can't be reached.
    """
    repository = reference.repository
    try:
        body, media_type = await persist(
            backoff, lambda: registry.manifest(repository, reference.digest)
        )
    except NotFound as cause:
        raise NotFound(
            f"The image {reference} is not at its registry.", details=cause.details
        ) from cause
    found = manifest.parse(body, media_type)
    configuration = await persist(backoff, lambda: small_blob(registry, repository, found.config))
    manifest.diff_ids(configuration, len(found.layers))  # refuses what no other reader would take
    return Image(reference, found)


class ImageFetch:
    """Fetches one image into a folder."""

    def __init__(
        self, registry: Registry, image: Image, slots: asyncio.Semaphore, backoff: Backoff
    ) -> None:
        """Take ``slots``, which bound how many layers of all images are under way."""
        self._registry, self._image = registry, image
        self._slots, self._backoff = slots, backoff
        self._done = [0] * len(image.manifest.layers)

    async def into(self, folder: Path, free_floor: int, report: Report) -> None:
        """Unpack the image as flat parts into ``folder``, which is empty.

        Every byte was checked when this returns; raised, the folder holds rubbish.

        Raises:
            Refused: the image is not what its digests say or holds what it must not, or there is
                no room (INSUFFICIENT_STORAGE).
            Retryable: the registry went away and did not come back.
        """
        budget = Budget(folder, self._image.most_bytes, free_floor)
        unpacker = Unpacker(folder, budget)
        await self._layers([0], folder, unpacker, report)
        with disk_errors(folder), _refusing(self._image):
            await asyncio.to_thread(unpacker.plan_memory)
        await self._layers(range(1, len(self._done)), folder, unpacker, report)
        with disk_errors(folder), _refusing(self._image):
            await asyncio.to_thread(unpacker.finish)
            await asyncio.to_thread(self._write_record, folder)

    async def _layers(
        self, indexes: Sequence[int], folder: Path, unpacker: Unpacker, report: Report
    ) -> None:
        async def one(index: int) -> None:
            async with self._slots:
                layer = self._image.manifest.layers[index]
                reader = LayerReader(layer, unpacker.sink())
                repository = self._image.reference.repository

                def received(size: int) -> None:
                    self._tell(index, size, report)

                download = LayerDownload(self._registry, repository, reader, layer, received)
                await download.run(folder, self._backoff)

        try:
            async with asyncio.TaskGroup() as group:
                for index in indexes:
                    group.create_task(one(index), name=f"fetch layer {index}")
        except BaseExceptionGroup as failures:
            raise foremost(failures) from None

    def _tell(self, index: int, size: int, report: Report) -> None:
        self._done[index] = size
        done, total = sum(self._done), self._image.size
        words = f"Fetching {len(self._done)} layers"
        report(Progress(100.0 * done / max(1, total), words, done, total))

    def _write_record(self, folder: Path) -> None:
        record.write(folder, image_annotations.record_of(self._image.manifest.annotations))


@contextmanager
def _refusing(image: Image) -> Iterator[None]:
    """Turn the formats' ValueError within the block into a refusal of the image."""
    try:
        yield
    except ValueError as cause:
        raise Refused(f"The image {image.reference} is damaged.", details=str(cause)) from cause
