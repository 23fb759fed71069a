"""One layer on its way to the registry: made, hashed and sent at once, and again where it broke."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self

from agent.errors import Broken, Retryable, SnapError
from agent.image.backoff import Backoff, persist
from agent.image.blobs import BlobReader
from agent.image.compression import Codec
from agent.image.content import Blob, LayerPlan
from agent.image.registry import Registry, Upload

_TELL_BYTES: Final = 4 << 20  # between two words on how far a layer is
_ABORT_S: Final = 5.0  # the registry forgets unfinished uploads by itself, later


@dataclass(slots=True)
class Sent:
    """A layer that the registry has, and what it took.

    Attributes:
        pushed_bytes: sent over the wire, repetitions included.
    """

    blob: Blob
    pushed_bytes: int


class LayerUpload:
    """Uploads one layer. Broken connections go on where the registry says, else from the start."""

    def __init__(
        self,
        registry: Registry,
        repository: str,
        layer: tuple[LayerPlan, Codec],
        consumed: Callable[[int], None],
        backoff: Backoff,
    ) -> None:
        """Take the layer, and where to report how many of its uncompressed bytes are done."""
        self._registry, self._repository = registry, repository
        self._plan, self._codec = layer
        self._consumed = consumed
        self._backoff = backoff
        self._upload: Upload | None = None
        self._pushed = 0

    async def run(self) -> Sent:
        """Bring the layer there.

        Raises:
            Retryable: the registry went away and did not come back in time.
            Refused, Broken: it, or the layer's files, are not as they must be.
        """
        if (known := await persist(self._backoff, self._there)) is not None:
            return Sent(known, 0)
        if self._plan.size and not self._plan.pieces:
            raise Retryable(
                f"Registry {self._registry.host} lost a layer while an image that needs it was "
                "pushed; push again."
            )
        try:
            blob = await persist(self._backoff, self._attempt)
        except BaseException:
            await self._abort()
            raise
        if self._plan.known is not None and blob.diff_id != self._plan.known.diff_id:
            raise Broken("A checkpoint changed after it was pushed; checkpoint again.")
        return Sent(blob, self._pushed)

    async def _there(self) -> Blob | None:
        """The blob, if it is known before it is made and the registry has it."""
        known = self._plan.known
        if known is None:
            return None
        there = await self._registry.has_blob(self._repository, known.digest)
        if not there and self._plan.known_in:
            there = await self._registry.mount(self._repository, known.digest, self._plan.known_in)
        if there:
            self._consumed(self._plan.size)
        return known if there else None

    async def _attempt(self) -> Blob:
        offset = await self._resume()
        if self._upload is None:
            await _whole(self._start())
        with BlobReader(self._plan, self._codec) as reader:
            body = _Body(reader, offset, self._consumed)
            try:
                await _whole(self._send(body), body.stop)
            finally:
                self._pushed += body.sent
            blob = reader.blob()
        await _whole(self._finish(blob))
        return blob

    async def _start(self) -> None:
        self._upload = await self._registry.start_upload(self._repository)

    async def _send(self, body: _Body) -> None:
        self._upload = await self._registry.send(self._begun(), body)

    async def _finish(self, blob: Blob) -> None:
        await self._registry.finish(self._begun(), blob.digest)
        self._upload = None

    def _begun(self) -> Upload:
        assert self._upload is not None  # noqa: S101 - narrows the type; _start came before
        return self._upload

    async def _resume(self) -> int:
        """How many bytes the registry has of a broken upload; without one it is 0."""
        if self._upload is None:
            return 0
        try:
            found = await self._registry.received(self._upload)
        except SnapError:
            found = None
        if found is None:
            await self._abort()
            return 0
        self._upload, size = found
        return size

    async def _abort(self) -> None:
        """Have the registry forget a half-done upload; never raises but when cancelled again."""
        upload, self._upload = self._upload, None
        if upload is None:
            return
        with suppress(SnapError, TimeoutError):
            async with asyncio.timeout(_ABORT_S):
                await self._registry.abort(upload)


async def _whole(step: Coroutine[Any, Any, None], stop: Callable[[], None] | None = None) -> None:
    """Await ``step``; cancelled, let it come to its end first, for a while.

    Registries forget an upload only while they know exactly how much of it they have, and an upload
    that began without our seeing the answer would stay there.
    """
    task = asyncio.create_task(step)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        if stop is not None:
            stop()
        await asyncio.wait([task], timeout=_ABORT_S)
        raise
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # taken note of


class _Body:
    """A blob's bytes from an offset on, for a worker thread; what is before is made once more, for the digests.

    Attributes:
        sent: bytes handed out.
    """

    def __init__(self, reader: BlobReader, offset: int, tell: Callable[[int], None]) -> None:
        """Take where to tell, in this event loop, how many uncompressed bytes are done."""
        self._reader, self._skip, self._tell = reader, offset, tell
        self._loop = asyncio.get_running_loop()
        self._told = 0
        self.sent = 0
        self._stopped = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        while not self._stopped:
            chunk = self._next()
            left = chunk[self._skip :]
            self._skip = max(0, self._skip - len(chunk))
            if left:
                self.sent += len(left)
                return left
        raise StopIteration

    def stop(self) -> None:
        """End here, as if this were all."""
        self._stopped = True

    def _next(self) -> bytes:
        try:
            chunk = next(self._reader, b"")
        except OSError as cause:
            raise Broken("The checkpoint can't be read any more.", details=str(cause)) from cause
        done = self._reader.consumed
        if not chunk or done >= self._told + _TELL_BYTES:
            self._told = done
            self._loop.call_soon_threadsafe(self._tell, done)
        if not chunk:
            raise StopIteration
        return chunk
