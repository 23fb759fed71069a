"""Fetching an image into a folder: manifest, configuration, metadata layer, then all others at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import NotFound, Refused
from agent.formats import digest, record
from agent.formats.jobs import Progress, Report
from agent.image import content, folders, image_annotations, manifest
from agent.image.backoff import Backoff, persist
from agent.image.download import LayerDownload, LayerReader, small_blob
from agent.image.manifest import Descriptor, Manifest
from agent.image.push import foremost
from agent.image.reference import ImageReference
from agent.image.registry import Registry
from agent.image.room import Budget, disk_errors
from agent.image.unpack import LayerSink, Unpacker, WindowSink
from agent.image.windows import Place, Windows

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
    def windows(self) -> tuple[Descriptor, ...]:
        """The layers that hold memory and nothing else."""
        return tuple(filter(is_window, self.manifest.layers[1:]))

    def expected_bytes(self, windows: Windows) -> int:
        """Room to make for it beside ``windows``: as declared, else a guess."""
        if not self.declared:
            return 3 * self.size
        there = (layer for layer in self.windows if digest.parse(layer.digest) in windows)
        return self.most_bytes - sum(map(_declared, there))


def is_window(layer: Descriptor) -> bool:
    """Whether a layer that is not an image's first says that it holds memory."""
    return layer.annotations.get(image_annotations.CONTENT) == content.MEMORY


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
        self,
        registry: Registry,
        image: Image,
        windows: Windows,
        slots: asyncio.Semaphore,
        backoff: Backoff,
    ) -> None:
        """Take ``slots``, which bound how many layers of all images are under way."""
        self._registry, self._image, self._windows = registry, image, windows
        self._slots, self._backoff = slots, backoff
        self._done = [0] * len(image.manifest.layers)
        self._here = 0
        self.window_bytes = 0  # of the windows that came by now, unpacked

    async def into(self, folder: Path, free_floor: int, report: Report) -> None:
        """Unpack the image as parts into ``folder``, which is empty; memory layers become windows.

        Every byte was checked when this returns; raised, the folder holds rubbish.

        Raises:
            Refused: the image is not what its digests say or holds what it must not, or there is
                no room (INSUFFICIENT_STORAGE).
            Retryable: the registry went away and did not come back.
        """
        budget = Budget(folder, self._image.most_bytes, free_floor)
        unpacker = Unpacker(folder, budget)
        with disk_errors(folder), _refusing(self._image):
            await self._layers(folder, unpacker, budget, report)
            await asyncio.to_thread(unpacker.finish)
            await asyncio.to_thread(self._write_record, folder)

    async def _layers(
        self, folder: Path, unpacker: Unpacker, budget: Budget, report: Report
    ) -> None:
        """All at once, but nothing is put into ``folder`` before the first one told what there must be."""
        planned = asyncio.Event()

        async def first() -> None:
            await self._layer(0, folder, unpacker.sink(), report)
            await asyncio.to_thread(unpacker.plan_memory)
            planned.set()

        async def other(index: int, layer: Descriptor) -> None:
            if is_window(layer):
                async with self._window(index, budget, report) as files:
                    await planned.wait()
                    await asyncio.to_thread(unpacker.link, files)
            else:
                await planned.wait()
                await self._layer(index, folder, unpacker.sink(), report)

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(first(), name="fetch layer 0")
                for index, layer in enumerate(self._image.manifest.layers[1:], 1):
                    group.create_task(other(index, layer), name=f"fetch layer {index}")
        except BaseExceptionGroup as failures:
            raise foremost(failures) from None

    @asynccontextmanager
    async def _window(
        self, index: int, budget: Budget, report: Report
    ) -> AsyncIterator[Mapping[Place, Path]]:
        """A memory layer's files, kept from being removed for the block."""
        layer = self._image.manifest.layers[index]
        wanted = digest.parse(layer.digest)
        async with self._windows.alone(wanted):
            if wanted in self._windows:
                self._here += 1
                self._tell(index, layer.size, report)
            else:
                async with folders.making(self._windows.folder(wanted)) as partial:
                    await self._layer(index, partial, WindowSink(partial, budget), report)
                self._windows.take(wanted)
                self.window_bytes += self._windows.size_of(wanted)
            yield await asyncio.to_thread(self._windows.files, wanted)

    async def _layer(self, index: int, folder: Path, sink: LayerSink, report: Report) -> None:
        async with self._slots:
            layer = self._image.manifest.layers[index]

            def received(size: int) -> None:
                self._tell(index, size, report)

            repository = self._image.reference.repository
            reader = LayerReader(layer, sink)
            download = LayerDownload(self._registry, repository, reader, layer, received)
            await download.run(folder, self._backoff)

    def _tell(self, index: int, size: int, report: Report) -> None:
        self._done[index] = size
        done, total = sum(self._done), self._image.size
        here = f", {self._here} of them here already" if self._here else ""
        words = f"Fetching {len(self._done)} layers{here}"
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
