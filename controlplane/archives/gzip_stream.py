"""An archive that comes compressed is inflated on its way to the disk, in small pieces."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from controlplane.errors import Refused

MAGIC: Final = b"\x1f\x8b"
_WITH_GZIP_HEADER: Final = 31  # zlib's wbits
_PIECE: Final = 1 << 20


class Plain:
    """What is not compressed, as it comes."""

    def take(self, piece: bytes) -> Iterator[bytes]:
        """The bytes that ``piece`` is."""
        yield piece

    def finish(self) -> None:
        """No more comes."""


class Inflating:
    """Gzip, one stream or several behind each other."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_WITH_GZIP_HEADER)
        self._begun = False

    def take(self, piece: bytes) -> Iterator[bytes]:
        """The bytes that ``piece`` unpacks to, at most 1 MiB at a time: the reader may stop early.

        Raises:
            Refused: it is damaged.
        """
        rest = piece
        try:
            while rest:
                if self._stream.eof:
                    rest = rest.lstrip(b"\0")  # padding of tapes
                    if not rest:
                        return
                    self._stream = zlib.decompressobj(_WITH_GZIP_HEADER)
                self._begun = True
                if made := self._stream.decompress(rest, _PIECE):
                    yield made
                rest = self._stream.unconsumed_tail or self._stream.unused_data
        except zlib.error as cause:
            raise Refused(
                "The archive was refused: its compression is damaged.", details=str(cause)
            ) from cause

    def finish(self) -> None:
        """No more comes.

        Raises:
            Refused: it broke off.
        """
        if self._begun and not self._stream.eof:
            raise Refused("The archive was refused: its compression breaks off.")


def reader(first: bytes) -> Plain | Inflating:
    """How an archive that begins with ``first`` is read."""
    return Inflating() if first.startswith(MAGIC) else Plain()
