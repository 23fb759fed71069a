"""How layers are compressed and taken apart again, in bounded memory either way.

Source: OCI image specification, layer.md and media-types.md; RFC 8878 (zstd), RFC 1952 (gzip).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Final, Protocol

import zstandard
from isal import isal_zlib

from agent.errors import Refused
from agent.image.content import FileRuns, FileSlice, LayerPlan, PieceReader

_OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_GZIP_WBITS: Final = 31  # deflate with gzip's header, which carries no time: deterministic
_STEP: Final = 256 << 10  # of uncompressed output handed on at once
_MAX_ZSTD_WINDOW: Final = 128 << 20  # what other readers accept too (zstd's own limit)
_SAMPLES: Final = 8
_SAMPLE_BYTES: Final = 64 << 10
_DENSE_FROM: Final = 0.97  # saving less than this is not worth the reader's and writer's time


class Codec(StrEnum):
    """How a layer is compressed."""

    ZSTD = "zstd"
    GZIP = "gzip"
    NONE = "none"


MEDIA_TYPES: Final = {
    Codec.ZSTD: _OCI_LAYER + "+zstd",
    Codec.GZIP: _OCI_LAYER + "+gzip",
    Codec.NONE: _OCI_LAYER,
}
_READABLE: Final = {
    **{media_type: codec for codec, media_type in MEDIA_TYPES.items()},
    "application/vnd.docker.image.rootfs.diff.tar.gzip": Codec.GZIP,
    "application/vnd.docker.image.rootfs.diff.tar.zstd": Codec.ZSTD,
    "application/vnd.docker.image.rootfs.diff.tar": Codec.NONE,
}


class Compressor(Protocol):
    """Takes a layer's bytes in order, gives compressed ones."""

    def compress(self, data: memoryview, /) -> bytes:
        """What is ready by now; may be empty."""

    def flush(self) -> bytes:
        """The rest."""


class Decompressor(Protocol):
    """Takes a blob's bytes in order, hands uncompressed ones on in bounded steps."""

    def feed(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes; ``ValueError`` when they are damaged."""

    def close(self) -> None:
        """Say that no more comes; ``ValueError`` when something is missing."""


class _Plain:
    def compress(self, data: memoryview, /) -> bytes:
        return bytes(data)

    def flush(self) -> bytes:
        return b""


def codec_named(name: str) -> Codec:
    """The codec of a job's ``compression``; "" is zstd.

    Raises:
        Refused: there is no such codec.
    """
    try:
        return Codec(name or Codec.ZSTD)
    except ValueError as cause:
        known = ", ".join(Codec)
        raise Refused(
            f"Compression {name[:40]!r} is not known; use one of {known}.", code="VALIDATION_ERROR"
        ) from cause


def codec_of(media_type: str) -> Codec:
    """The codec of a layer's media type.

    Raises:
        Refused: it is no type of layer that is known here.
    """
    codec = _READABLE.get(media_type)
    if codec is None:
        raise Refused(f"The image has a layer of type {media_type[:80]!r}, which can't be read.")
    return codec


def compressor(codec: Codec, size: int) -> Compressor:
    """A new compressor for a layer of exactly ``size`` uncompressed bytes."""
    if codec is Codec.ZSTD:
        return zstandard.ZstdCompressor(level=1).compressobj(size=size)
    if codec is Codec.GZIP:
        made: Compressor = isal_zlib.compressobj(1, isal_zlib.DEFLATED, _GZIP_WBITS)
        return made
    return _Plain()


def worthwhile(codec: Codec, plan: LayerPlan) -> Codec:
    """``codec``, or NONE when samples of the layer hardly shrink. Blocking, a few milliseconds."""
    if codec is Codec.NONE or not plan.maybe_dense:
        return codec
    buffer = memoryview(bytearray(_SAMPLE_BYTES))
    tool = zstandard.ZstdCompressor(level=1)
    before = after = 0
    for sample in _samples(plan):
        with PieceReader([sample]) as reader:
            size = reader.readinto(buffer)
        before += size
        after += len(tool.compress(buffer[:size]))
    return Codec.NONE if before and after > before * _DENSE_FROM else codec


def _samples(plan: LayerPlan) -> list[FileSlice]:
    """Slices of the layer's files, evenly spread over each."""
    files = [piece for piece in plan.pieces if not isinstance(piece, bytes)]
    stride = max(_SAMPLE_BYTES, sum(piece.length for piece in files) // _SAMPLES)
    spread = (part for piece in files for part in _spread(piece, stride))
    return list(itertools.islice(spread, 4 * _SAMPLES))


def _spread(piece: FileSlice | FileRuns, stride: int) -> Iterator[FileSlice]:
    """About one slice in ``stride`` bytes."""
    if isinstance(piece, FileSlice):
        for at in range(0, piece.length, stride):
            size = min(_SAMPLE_BYTES, piece.length - at)
            yield FileSlice(piece.path, piece.offset + at, size)
        return
    step = max(1, len(piece.offsets) * stride // max(1, piece.length))
    for index in range(0, len(piece.offsets), step):
        size = min(_SAMPLE_BYTES, piece.lengths[index])
        yield FileSlice(piece.path, piece.offsets[index], size)


def decompressor(codec: Codec, write: Callable[[bytes | memoryview], object]) -> Decompressor:
    """A new decompressor that hands what comes out to ``write``, at most 1 MiB at a time."""
    if codec is Codec.ZSTD:
        return _ZstdDecompressor(write)
    if codec is Codec.GZIP:
        return _GzipDecompressor(write)
    return _PlainDecompressor(write)


class _PlainDecompressor:
    def __init__(self, write: Callable[[bytes | memoryview], object]) -> None:
        self._write = write

    def feed(self, chunk: bytes | memoryview) -> None:
        self._write(chunk)

    def close(self) -> None:
        pass


class _Target:
    """What zstandard writes to."""

    def __init__(self, write: Callable[[bytes | memoryview], object]) -> None:
        self._write = write

    def write(self, data: bytes) -> int:
        self._write(data)
        return len(data)


class _ZstdDecompressor:
    """Frames one after another; a writer, because only that bounds what comes out of one chunk."""

    def __init__(self, write: Callable[[bytes | memoryview], object]) -> None:
        tool = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW)
        self._writer = tool.stream_writer(_Target(write), write_size=_STEP)  # type: ignore[arg-type]

    def feed(self, chunk: bytes | memoryview) -> None:
        try:
            self._writer.write(chunk)
        except zstandard.ZstdError as cause:
            raise ValueError(f"damaged zstd data: {cause}") from cause

    def close(self) -> None:
        pass  # a cut-off frame is found by the digest, or by the tar in it


class _GzipDecompressor:
    """Members one after another."""

    def __init__(self, write: Callable[[bytes | memoryview], object]) -> None:
        self._write = write
        self._tool = isal_zlib.decompressobj(_GZIP_WBITS)

    def feed(self, chunk: bytes | memoryview) -> None:
        try:
            full = False  # the last step was cut off: there may be more without more input
            while chunk or full:
                if self._tool.eof:
                    self._tool = isal_zlib.decompressobj(_GZIP_WBITS)
                ready = self._tool.decompress(chunk, _STEP)
                self._write(ready)
                full = len(ready) == _STEP and not self._tool.eof
                chunk = self._tool.unused_data if self._tool.eof else self._tool.unconsumed_tail
        except isal_zlib.IsalError as cause:  # type: ignore[misc]  # its stubs miss the base class
            raise ValueError(f"damaged gzip data: {cause}") from cause

    def close(self) -> None:
        if not self._tool.eof:
            raise ValueError("the gzip data ends too early")
