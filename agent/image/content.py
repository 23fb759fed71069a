"""The uncompressed bytes of a layer, as pieces of memory and of files, read into a buffer."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from agent.errors import Broken
from agent.formats import tar_format
from agent.formats.digest import Digest

METADATA: Final = "metadata"
FILES: Final = "files"
MEMORY: Final = "memory"


@dataclass(frozen=True, slots=True)
class FileSlice:
    """``length`` bytes of a file, from ``offset``."""

    path: Path
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class FileRuns:
    """Many parts of one file, one after another; kept small, for there may be a million.

    Attributes:
        length: of all parts, in bytes.
    """

    path: Path
    offsets: array[int]
    lengths: array[int]
    length: int

    def __iter__(self) -> Iterator[FileSlice]:
        for offset, length in zip(self.offsets, self.lengths, strict=True):
            yield FileSlice(self.path, offset, length)


Piece = bytes | FileSlice | FileRuns


@dataclass(frozen=True, slots=True)
class Blob:
    """A finished layer.

    Attributes:
        digest: of the compressed bytes; ``diff_id`` of the uncompressed ones.
        size: of the compressed bytes; ``unpacked_size`` of the uncompressed ones.
    """

    media_type: str
    digest: Digest
    size: int
    diff_id: Digest
    unpacked_size: int
    content: str


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """A layer before it is made: its pieces in order.

    Attributes:
        content: METADATA, FILES or MEMORY.
        size: of the uncompressed layer, in bytes.
        maybe_dense: try before compressing whether it shrinks at all (memory often does not).
        known: the blob that it will be, where that is known: it is not made if the registry has it.
        known_in: another repository of the registry that may have ``known``.
    """

    content: str
    pieces: tuple[Piece, ...]
    size: int
    maybe_dense: bool = False
    known: Blob | None = None
    known_in: str = ""


def plan(
    content: str,
    members: Iterable[tuple[tar_format.Entry, Piece]],
    *,
    maybe_dense: bool = False,
) -> LayerPlan:
    """A layer that is a tar of ``members``; each entry's size is that of its piece."""
    pieces: list[Piece] = []
    for entry, piece in members:
        pieces.append(tar_format.header(entry))
        if entry.size:
            pieces += [piece, bytes(tar_format.padding(entry.size))]
    pieces.append(tar_format.END)
    return LayerPlan(content, tuple(pieces), sum(map(length_of, pieces)), maybe_dense)


def length_of(piece: Piece) -> int:
    """In bytes."""
    return len(piece) if isinstance(piece, bytes) else piece.length


def _one_by_one(pieces: Iterable[Piece]) -> Iterator[bytes | FileSlice]:
    for piece in pieces:
        if isinstance(piece, FileRuns):
            yield from piece
        else:
            yield piece


class PieceReader:
    """Reads pieces one after another. Blocking; for one thread at a time; closed by ``with``."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._pieces = _one_by_one(pieces)
        self._piece: bytes | FileSlice = b""
        self._done = 0  # of the piece
        self._open: tuple[Path, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file that is open. Closing twice is harmless."""
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer``; less than full at the end only.

        Raises:
            Broken: a file is shorter than it was when the layer was planned.
        """
        filled = 0
        while filled < len(buffer):
            left = length_of(self._piece) - self._done
            if left <= 0:
                following = next(self._pieces, None)
                if following is None:
                    break
                self._piece, self._done = following, 0
                continue
            target = buffer[filled : filled + left]
            taken = self._read(target)
            self._done += taken
            filled += taken
        return filled

    def _read(self, target: memoryview) -> int:
        piece = self._piece
        if isinstance(piece, bytes):
            target[:] = piece[self._done : self._done + len(target)]
            return len(target)
        taken = os.preadv(self._descriptor(piece.path), [target], piece.offset + self._done)
        if not taken:
            raise Broken(f"{piece.path} became shorter while it was read; checkpoint again")
        return taken

    def _descriptor(self, path: Path) -> int:
        if self._open is None or self._open[0] != path:
            self.close()
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            with suppress(OSError):  # advice only; not every file system takes it
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            self._open = path, descriptor
        return self._open[1]
