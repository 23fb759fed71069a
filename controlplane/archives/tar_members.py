"""Walking over a tar on the disk, header by header: bounded memory, whatever it claims.

Contents are skipped by seeking. What could be read in two ways (sparse files, folders with content,
two tars behind each other) is refused: another reader must see the same members.

Source: POSIX.1-2017, pax, "ustar Interchange Format", "pax Extended Header"; GNU tar, long names.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

BLOCK: Final = 512
MAX_HEADERS: Final = 400_000  # a member with a long name has two
_MAX_EXTENDED_BYTES: Final = 64 << 10  # names and attributes of one member
_MAX_DIGITS: Final = 19
_CHUNK: Final = 1 << 20
_LONG: Final = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_PAX: Final = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)


class TarError(Exception):
    """This is no tar, or one that no checkpoint needs; the message says why in half a sentence."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member: its content is ``size`` bytes from ``offset`` of the tar."""

    name: str
    kind: bytes
    size: int
    offset: int

    @property
    def is_file(self) -> bool:
        """An ordinary file."""
        return self.kind in (tarfile.REGTYPE, tarfile.AREGTYPE)

    @property
    def is_folder(self) -> bool:
        """A directory."""
        return self.kind == tarfile.DIRTYPE


def members(file: BinaryIO, size: int) -> Iterator[Member]:
    """The members of the tar in ``file``, which is ``size`` bytes long. Blocks on the disk.

    Raises:
        TarError: see the class; raised as soon as it is seen.
    """
    position = 0
    said: dict[str, str] = {}
    for _ in range(MAX_HEADERS):
        block = _read(file, position, BLOCK, size)
        if not any(block):
            if said:
                raise TarError("it ends after a member's extended header")
            _check_rest(file, position)
            return
        info = _header(block)
        start = position + BLOCK
        if info.type in _LONG or info.type in _PAX or info.type == tarfile.XGLTYPE:
            said.update(_extended(file, start, info, size))
            position = _after(start, info.size, size)
            continue
        member = _member(info, said, start)
        position = _after(start, member.size, size)
        said = {}
        yield member
    raise TarError(f"it has more than {MAX_HEADERS} headers")


def _header(block: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as cause:
        raise TarError(f"a header is damaged ({cause})") from cause


def _member(info: tarfile.TarInfo, said: dict[str, str], start: int) -> Member:
    name = said.get("path", info.name)
    if info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in said):
        raise TarError(f"{shown(name)} is a sparse file")
    size = int(said["size"]) if "size" in said else info.size
    kind = info.type
    if kind == tarfile.AREGTYPE and name.endswith("/"):  # how tars before POSIX mark a folder
        kind = tarfile.DIRTYPE
    if size < 0 or (size and kind not in (tarfile.REGTYPE, tarfile.AREGTYPE)):
        raise TarError(f"{shown(name)} has a size that its kind can't have")
    return Member(name, kind, size, start)


def _after(start: int, length: int, size: int) -> int:
    """Where the next header is.

    Raises:
        TarError: beyond the end.
    """
    if length < 0 or start + length > size:
        raise TarError("it ends within a member")
    return start + length + (-length % BLOCK)


def _read(file: BinaryIO, position: int, length: int, size: int) -> bytes:
    if position + length > size:
        raise TarError("it breaks off without its end mark")
    file.seek(position)
    return file.read(length)


def _check_rest(file: BinaryIO, position: int) -> None:
    """Behind the end mark there are zeros only: padding, and no second tar."""
    file.seek(position)
    while piece := file.read(_CHUNK):
        if piece.count(0) != len(piece):
            raise TarError("something follows its end mark")


def _extended(file: BinaryIO, start: int, info: tarfile.TarInfo, size: int) -> dict[str, str]:
    if not 0 < info.size <= _MAX_EXTENDED_BYTES:
        raise TarError(f"an extended header has {info.size} bytes")
    content = _read(file, start, info.size, size)
    if info.type in _LONG:
        return {_LONG[info.type]: content.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    records = dict(_records(content))
    if info.type == tarfile.XGLTYPE:
        if set(records) - {"comment"}:
            raise TarError("a global header changes every member")
        return {}
    return records


def _records(content: bytes) -> Iterator[tuple[str, str]]:
    r"""``length key=value\n`` records, the length counting all of its own record."""
    position = 0
    while position < len(content):
        digits, space, _ = content[position : position + _MAX_DIGITS].partition(b" ")
        end = position + int(digits) if space and digits.isdigit() else 0
        key, equals, value = content[position + len(digits) + 1 : end - 1].partition(b"=")
        whole = position + len(digits) + 1 < end <= len(content) and content[end - 1] == 0x0A
        if not whole or not equals or not key:
            raise TarError("an extended header is damaged")
        if key == b"size" and not (value.isdigit() and len(value) <= _MAX_DIGITS):
            raise TarError("an extended header has a size that is no number")
        yield key.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")
        position = end


def shown(name: str) -> str:
    """A member's name as it may be repeated in a message."""
    return ascii(name[:120])
