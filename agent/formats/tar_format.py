"""Tar as the archive and the layers use it: deterministic headers, and a reader fed by chunks.

Headers are ustar; PAX records come in front only where ustar can't say it (names over 255 bytes,
files over 8 GiB). The reader never looks at the disk and trusts nothing: what a member may be is
decided by the sink.

Source: POSIX.1-2017, pax, "ustar Interchange Format", "pax Extended Header"; GNU tar, long names.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from typing import Final, Protocol

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
MAX_EXTENDED_BYTES: Final = 1 << 20  # of one PAX or GNU header; names and xattrs, not content
_PAX: Final = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)


@dataclass(frozen=True, slots=True)
class Entry:
    """What a header says of a member. ``kind`` is tarfile's type byte, ``size`` 0 but for files."""

    name: str
    size: int = 0
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o600
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    link_target: str = ""

    @property
    def is_file(self) -> bool:
        """An ordinary file (sparse ones are not)."""
        return self.kind in (tarfile.REGTYPE, tarfile.AREGTYPE)

    @property
    def is_folder(self) -> bool:
        """A directory."""
        return self.kind == tarfile.DIRTYPE


def padding(size: int) -> int:
    """How many zero bytes follow a content of ``size`` bytes."""
    return -size % BLOCK


def header(entry: Entry) -> bytes:
    """The blocks in front of a member's content; the same entry always gives the same."""
    info = tarfile.TarInfo(entry.name)
    info.size, info.type, info.mode = entry.size, entry.kind, entry.mode
    info.uid, info.gid, info.mtime = entry.uid, entry.gid, entry.mtime
    info.linkname = entry.link_target
    try:
        return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
    except ValueError:  # too long or too large for ustar
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


class Sink(Protocol):
    """Takes members in their order; an exception of it ends the reading."""

    def begin(self, entry: Entry) -> None:
        """A member starts; ``write`` gets exactly ``entry.size`` bytes of it."""

    def write(self, chunk: memoryview) -> None:
        """Some of the content; the view is valid during the call only."""

    def end(self) -> None:
        """The member is whole."""


class Reader:
    """Cuts a tar that comes in chunks of any size into members for ``sink``. Not thread-safe.

    Args:
        sink: takes the members.
        sparse: take files with holes too, as they are stored: a map of the rest, and the rest.
            Source: GNU tar manual, "PAX Format, Version 1.0".
    """

    def __init__(self, sink: Sink, *, sparse: bool = False) -> None:
        self._sink, self._sparse = sink, sparse
        self._block = (
            bytearray()
        )  # a header, or an extended header's content, that is not whole yet
        self._wanted = BLOCK
        self._extending = b""  # type of the extended header whose content is being collected
        self._extended_size = 0
        self._overrides: dict[str, str] = {}
        self._body = 0  # bytes of content to come
        self._skip = 0  # bytes of padding to come
        self._in_member = False
        self._ended = False

    def feed(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            ValueError: this is no tar, or one that goes beyond what is read here.
        """
        view = memoryview(chunk)
        while view and not self._ended:
            if self._body:
                taken = min(self._body, len(view))
                self._sink.write(view[:taken])
                self._body -= taken
                self._close_member()
            elif self._skip:
                taken = min(self._skip, len(view))
                self._skip -= taken
            else:
                taken = min(self._wanted - len(self._block), len(view))
                self._block += view[:taken]
                if len(self._block) == self._wanted:
                    self._take_block()
            view = view[taken:]

    def close(self) -> None:
        """Say that no more comes.

        Raises:
            ValueError: the tar ends within a member.
        """
        if not self._ended and (self._body or self._skip or self._block or self._extending):
            raise ValueError("the tar ends within a member")

    def _close_member(self) -> None:
        if self._in_member and not self._body:
            self._in_member = False
            self._sink.end()

    def _take_block(self) -> None:
        block, self._block = bytes(self._block), bytearray()
        if self._extending:
            self._apply_extended(block[: self._extended_size])
            return
        if not any(block):
            self._ended = True
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as cause:
            raise ValueError(f"damaged tar header: {cause}") from cause
        if info.type in (
            *_PAX,
            tarfile.XGLTYPE,
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
        ):
            self._start_extended(info)
        else:
            self._start_member(info)

    def _start_extended(self, info: tarfile.TarInfo) -> None:
        if not 0 < info.size <= MAX_EXTENDED_BYTES:
            raise ValueError(f"a tar header of {info.size} bytes")
        self._extending, self._extended_size = info.type, info.size
        self._wanted = info.size + padding(info.size)

    def _apply_extended(self, content: bytes) -> None:
        kind, self._extending, self._wanted = self._extending, b"", BLOCK
        if kind == tarfile.GNUTYPE_LONGNAME:
            self._overrides["path"] = _text(content.rstrip(b"\0"))
        elif kind == tarfile.GNUTYPE_LONGLINK:
            self._overrides["linkpath"] = _text(content.rstrip(b"\0"))
        elif kind in _PAX:  # global headers carry comments only
            self._overrides.update(_pax_records(content))

    def _start_member(self, info: tarfile.TarInfo) -> None:
        overrides, self._overrides = self._overrides, {}
        if not self._sparse and any(key.startswith("GNU.sparse.") for key in overrides):
            raise ValueError(f"{info.name!r} is a sparse file")
        size = int(overrides.get("size", info.size))
        if size < 0:
            raise ValueError(f"{info.name!r} has a negative size")
        name = overrides.get("GNU.sparse.name", overrides.get("path", info.name))
        kind = info.type
        if kind == tarfile.AREGTYPE and name.endswith("/"):  # how tars before POSIX mark a folder
            kind = tarfile.DIRTYPE
        entry = Entry(
            name=name,
            size=size,
            kind=kind,
            mode=info.mode,
            uid=int(overrides.get("uid", info.uid)),
            gid=int(overrides.get("gid", info.gid)),
            mtime=int(info.mtime),
            link_target=overrides.get("linkpath", info.linkname),
        )
        self._sink.begin(entry)
        self._body, self._skip, self._in_member = size, padding(size), True
        self._close_member()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _pax_records(content: bytes) -> dict[str, str]:
    """``length key=value\\n`` records, the length counting all of its own record."""
    records: dict[str, str] = {}
    position = 0
    while position < len(content):
        space = content.find(b" ", position, position + 20)
        digits = content[position:space]
        if space < 0 or not digits.isdigit():
            raise ValueError("damaged PAX header")
        end = position + int(digits)
        key, equals, value = content[space + 1 : end - 1].partition(b"=")
        if end > len(content) or end <= space + 1 or not equals or content[end - 1 : end] != b"\n":
            raise ValueError("damaged PAX header")
        if key == b"size" and not value.isdigit():
            raise ValueError("damaged PAX header")
        records[_text(key)] = _text(value)
        position = end
    return records
