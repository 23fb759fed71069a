"""CRIU's image container: a magic, then entries, each a length and a protobuf message.

This module knows the container only; what a message means is ``criu_wire``'s.

Source: CRIU, criu/include/magic.h, criu/image.c (``img_write_magic``) and criu/protobuf.c (lengths
are 32-bit little-endian).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

COMMON_MAGIC: Final = 0x54564319  # in front of the type's own magic, but for inventory.img
SERVICE_MAGIC: Final = 0x55105940  # the same for statistics
PAGEMAP_MAGIC: Final = 0x56084025
PAGE_SIZE: Final = 4096
MAX_ENTRY_BYTES: Final = 64 << 20  # no message of a sane image comes near it
_WORD: Final = struct.Struct("<I")


def magic_of(image: bytes | memoryview) -> bytes:
    """The 4 or 8 bytes of magic that ``image`` starts with.

    Raises:
        ValueError: it is too short to be an image.
    """
    if len(image) < _WORD.size:
        raise ValueError("too short to be a CRIU image")
    (first,) = _WORD.unpack_from(image)
    size = 2 * _WORD.size if first in (COMMON_MAGIC, SERVICE_MAGIC) else _WORD.size
    if len(image) < size:
        raise ValueError("the CRIU image ends within its magic")
    return bytes(image[:size])


def entries(image: bytes | memoryview) -> Iterator[bytes]:
    """The messages of ``image``, in order.

    Only for images without raw payload between the entries (all that the agent reads: inventory,
    pstree, core, mm, ids, pagemap, stats …).

    Raises:
        ValueError: the image is cut off or no CRIU image.
    """
    position = len(magic_of(image))
    view = memoryview(image)
    while position < len(view):
        if len(view) - position < _WORD.size:
            raise ValueError("the CRIU image ends within an entry's length")
        (size,) = _WORD.unpack_from(view, position)
        position += _WORD.size
        if size > MAX_ENTRY_BYTES or size > len(view) - position:
            raise ValueError("the CRIU image ends within an entry")
        yield bytes(view[position : position + size])
        position += size


def first(image: bytes | memoryview) -> bytes:
    """The first message of ``image`` (many images have one only).

    Raises:
        ValueError: it has none, or is no CRIU image.
    """
    for message in entries(image):
        return message
    raise ValueError("the CRIU image has no entry")


def frame(message: bytes) -> bytes:
    """``message`` as an entry: its length in front."""
    return _WORD.pack(len(message)) + message


def build(magic: bytes, messages: Iterable[bytes]) -> bytes:
    """An image of ``messages`` behind ``magic`` (4 or 8 bytes, from ``magic_of`` or ``magic``)."""
    image = bytearray(magic)
    for message in messages:  # a pagemap may have a million
        image += frame(message)
    return bytes(image)


def magic(kind: int, *, service: bool = False) -> bytes:
    """The eight bytes in front of an image of type ``kind`` (e.g. ``PAGEMAP_MAGIC``)."""
    return _WORD.pack(SERVICE_MAGIC if service else COMMON_MAGIC) + _WORD.pack(kind)
