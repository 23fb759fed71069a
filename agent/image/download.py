"""One layer on its way in: resumed where it broke, decompressed once, every byte of the blob hashed.

The blob's digest is in the manifest, whose own digest was granted: what comes out of such bytes can't be anything
else than what their maker put in. So what comes out is not hashed again (the configuration's ``diff_ids``): that
would cost more than the rest of the fetch.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from agent.errors import Refused
from agent.formats import digest, tar_format
from agent.image import compression, registry_errors
from agent.image.backoff import Backoff, persist
from agent.image.manifest import Descriptor
from agent.image.registry import Registry
from agent.image.room import disk_errors
from agent.image.unpack import LayerSink

_TELL_BYTES: Final = 4 << 20  # between two words on how far a layer is
MAX_SMALL_BYTES: Final = 8 << 20  # of a configuration


class LayerReader:
    """Takes a layer's compressed bytes, hands its members to ``sink``. Blocking; not thread-safe."""

    def __init__(self, layer: Descriptor, sink: LayerSink) -> None:
        self._layer, self._sink = layer, sink
        self._tar = tar_format.Reader(sink)
        codec = compression.codec_of(layer.media_type)
        self._tool = compression.decompressor(codec, self._tar.feed)
        self._digest = hashlib.sha256()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sink.close()
        # reader and decompressor know each other; apart, their buffers are freed at once
        del self._tool

    def feed(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            Refused: they are damaged, or hold what may not be unpacked.
        """
        self._digest.update(chunk)
        try:
            self._tool.feed(chunk)
        except ValueError as cause:
            raise self._damaged(str(cause)) from cause

    def close(self) -> None:
        """Say that no more comes, and check the digest.

        Raises:
            Refused: it is not the manifest's, or the layer ends too early.
        """
        try:
            self._tool.close()
            self._tar.close()
        except ValueError as cause:
            raise self._damaged(str(cause)) from cause
        if "sha256:" + self._digest.hexdigest() != self._layer.digest:
            raise self._damaged(f"its bytes are not those of {self._layer.digest}")

    def _damaged(self, why: str) -> Refused:
        return Refused(f"The image's layer {self._layer.digest} was refused.", details=why)


class LayerDownload:
    """Brings one layer. A broken connection goes on where it broke."""

    def __init__(
        self,
        registry: Registry,
        repository: str,
        reader: LayerReader,
        layer: Descriptor,
        received: Callable[[int], None],
    ) -> None:
        """Take the layer's reader, and where to report how many of its bytes are here."""
        self._registry, self._repository = registry, repository
        self._reader, self._layer = reader, layer
        self._received = received
        self._offset = 0

    async def run(self, folder: Path, backoff: Backoff) -> None:
        """Bring the whole layer into ``folder``.

        Raises:
            Refused: it is not what its digest says, may not be unpacked, or there is no room.
            Retryable: the registry went away and did not come back.
        """
        with disk_errors(folder), self._reader:
            if self._layer.size:
                await persist(backoff, self._attempt)
            await asyncio.to_thread(self._reader.close)

    async def _attempt(self) -> None:
        wanted = digest.parse(self._layer.digest)
        loop = asyncio.get_running_loop()
        told = 0

        def take(chunk: memoryview) -> None:  # in a worker thread
            nonlocal told
            self._offset += len(chunk)
            if self._offset > self._layer.size:
                raise Refused(f"The layer {wanted} is longer than the manifest says.")
            self._reader.feed(chunk)
            if self._offset >= told + _TELL_BYTES or self._offset == self._layer.size:
                told = self._offset
                loop.call_soon_threadsafe(self._received, told)

        await self._registry.blob(self._repository, wanted, take, self._offset)
        if self._offset < self._layer.size:
            raise registry_errors.unreachable(self._registry.host, "the layer ended too early")


async def small_blob(registry: Registry, repository: str, wanted: Descriptor) -> bytes:
    """A small blob's checked bytes.

    Raises:
        Refused: it is too large, or not what its digest says.
    """
    if wanted.size > MAX_SMALL_BYTES:
        raise Refused(f"The image's configuration has {wanted.size} bytes.")
    found = bytearray()

    def take(chunk: memoryview) -> None:
        if len(found) + len(chunk) > wanted.size:
            raise Refused(f"The registry gave other bytes for {wanted.digest}.")
        found.extend(chunk)

    await registry.blob(repository, digest.parse(wanted.digest), take)
    if digest.of(bytes(found)) != wanted.digest:
        raise Refused(f"The registry gave other bytes for {wanted.digest}.")
    return bytes(found)
