"""One layer on its way to the registry: made, hashed and sent at once, and again where it broke."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Final, Self

from agent.errors import Broken, Retryable, SnapError
from agent.image.backoff import Backoff, persist
from agent.image.blobs import BlobChunks, BlobReader
from agent.image.compression import Codec
from agent.image.content import Blob, LayerPlan
from agent.image.registry import Registry, Upload

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
            async with aclosing(BlobChunks(reader)) as made:
                body = _Body(made, offset, lambda: self._consumed(reader.consumed))
                try:
                    await _whole(self._send(body), body.stop)
                except SnapError as cause:
                    raise body.failure or cause from cause
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
    """A blob's bytes from an offset on; what is before is made once more, for the digests.

    Attributes:
        sent: bytes handed out.
        failure: what went wrong in making them; the client library calls it a broken connection.
    """

    def __init__(self, made: BlobChunks, offset: int, tell: Callable[[], None]) -> None:
        self._made, self._skip, self._tell = made, offset, tell
        self.sent = 0
        self.failure: SnapError | None = None
        self._stopped = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._stopped:
            chunk = await self._next()
            self._tell()
            left = chunk[self._skip :]
            self._skip = max(0, self._skip - len(chunk))
            if left:
                self.sent += len(left)
                return left
        raise StopAsyncIteration

    def stop(self) -> None:
        """End here, as if this were all."""
        self._stopped = True

    async def _next(self) -> bytes:
        try:
            return await anext(self._made)
        except SnapError as cause:
            self.failure = cause
            raise
        except OSError as cause:
            self.failure = Broken("The checkpoint can't be read any more.", details=str(cause))
            raise self.failure from cause
