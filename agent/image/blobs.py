"""A layer plan becomes a blob: read, compressed and hashed in one pass, chunk by chunk."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from typing import Final, Self

from agent.formats.digest import Digest
from agent.image import compression
from agent.image.compression import Codec
from agent.image.content import Blob, LayerPlan, PieceReader

READ_BYTES: Final = 512 << 10  # at once; also about what one chunk of the blob comes from
_CHUNK_BYTES: Final = 256 << 10  # smaller output is collected: each chunk costs some Python


class BlobReader(AbstractContextManager["BlobReader"]):
    """Makes one blob. Blocking, for a worker thread; iterated over, it gives the blob's chunks."""

    def __init__(self, plan: LayerPlan, codec: Codec) -> None:
        self._plan = plan
        self._wanted = codec
        self._codec: Codec | None = None
        self._source = PieceReader(plan.pieces)
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._digest, self._diff_id = hashlib.sha256(), hashlib.sha256()
        self._size = 0
        self._ended = False
        self.consumed = 0  # uncompressed bytes taken by now; may be read from any thread

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if chunk := self.read():
            return chunk
        raise StopIteration

    def read(self) -> bytes:
        """The blob's next chunk; empty at its end.

        Raises:
            Broken: a file of the layer changed.
            OSError: it can't be read.
        """
        if self._codec is None:
            self._codec = compression.worthwhile(self._wanted, self._plan)
            self._tool = compression.compressor(self._codec, self._plan.size)
        ready: list[bytes] = []
        collected = 0
        while collected < _CHUNK_BYTES and not self._ended:
            part = self._step()
            ready.append(part)
            collected += len(part)
        chunk = ready[0] if len(ready) == 1 else b"".join(ready)
        if self._codec is not Codec.NONE:  # stored raw, both digests are one
            self._digest.update(chunk)
        self._size += len(chunk)
        return chunk

    def _step(self) -> bytes:
        taken = self._source.readinto(self._buffer)
        if not taken:
            self._ended = True
            return self._tool.flush()
        view = self._buffer[:taken]
        self._diff_id.update(view)
        self.consumed += taken
        return self._tool.compress(view)

    def blob(self) -> Blob:
        """What came out; only after ``read`` gave its empty end."""
        assert self._codec is not None  # noqa: S101 - narrows the type; read() was called
        sent = self._diff_id if self._codec is Codec.NONE else self._digest
        return Blob(
            media_type=compression.MEDIA_TYPES[self._codec],
            digest=Digest("sha256:" + sent.hexdigest()),
            size=self._size,
            diff_id=Digest("sha256:" + self._diff_id.hexdigest()),
            unpacked_size=self.consumed,
            content=self._plan.content,
        )


def make(plan: LayerPlan, codec: Codec) -> Blob:
    """What ``plan`` becomes, its bytes thrown away. Blocking for as long as compressing takes."""
    with BlobReader(plan, codec) as reader:
        while reader.read():
            pass
        return reader.blob()
