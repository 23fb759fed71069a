"""A checkpoint's archive: the tar of its folder of parts, made on the fly, the same bytes every time.

The order is fixed and headers carry nothing but name and size, so any range can be read anew after a
broken download without reading what lies before it.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.checkpoint import shelf
from agent.formats import layout, tar_format

_CHUNK: Final = 1 << 20
_FIRST: Final = (layout.CONFIG_DUMP, layout.SPEC_DUMP, layout.STATUS_DUMP)  # readers stop early


@dataclass(frozen=True, slots=True)
class _Member:
    header: bytes
    path: Path | None  # None for a directory
    size: int
    offset: int  # of the header in the archive

    @property
    def end(self) -> int:
        return self.offset + len(self.header) + self.size + tar_format.padding(self.size)


def size(parts: Path) -> int:
    """How long the archive of ``parts`` is, in bytes."""
    return _end(_members(parts))


def read(parts: Path, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
    """Bytes ``offset`` to ``offset + length`` (None: to the end) of the archive of ``parts``.

    Blocks on the disk; pieces are at most 1 MiB.

    Raises:
        EOFError: a part is shorter than it was; the checkpoint is being removed.
    """
    members = _members(parts)
    total = _end(members)
    stop = total if length is None else min(offset + length, total)
    for member in members:
        if member.end <= offset:
            continue
        if member.offset >= stop:
            return
        yield from _slice(member, offset, stop)
    tail = total - len(tar_format.END)
    if offset < total and stop > tail:
        yield tar_format.END[max(offset - tail, 0) : stop - tail]


def names(parts: Path) -> tuple[str, ...]:
    """The archive's members in their order; directories end with a slash."""
    found = (path for path in parts.rglob("*") if path.is_dir() or path.is_file())
    listed = (path.relative_to(parts).as_posix() + "/" * path.is_dir() for path in found)
    kept = (name for name in listed if not shelf.is_beside(name))
    return tuple(sorted(kept, key=lambda name: (name not in _FIRST, name)))


def _members(parts: Path) -> tuple[_Member, ...]:
    members: list[_Member] = []
    at = 0
    for name in names(parts):
        path = parts / name
        entry = tar_format.Entry(name, kind=tarfile.DIRTYPE, mode=0o700)
        if not name.endswith("/"):
            entry = tar_format.Entry(name, path.stat().st_size)
        header = tar_format.header(entry)
        member = _Member(header, path if entry.is_file else None, entry.size, at)
        members.append(member)
        at = member.end
    return tuple(members)


def _end(members: tuple[_Member, ...]) -> int:
    return (members[-1].end if members else 0) + len(tar_format.END)


def _slice(member: _Member, start: int, stop: int) -> Iterator[bytes]:
    """What of ``member`` lies between ``start`` and ``stop`` of the archive."""
    begin = max(start - member.offset, 0)
    until = min(stop, member.end) - member.offset
    content = len(member.header)
    if begin < content:
        yield member.header[begin : min(until, content)]
    if member.path and until > content:
        yield from _content(member, max(begin - content, 0), min(until - content, member.size))
    padding_from = max(begin, content + member.size)
    if until > padding_from:
        yield bytes(until - padding_from)


def _content(member: _Member, begin: int, until: int) -> Iterator[bytes]:
    if begin >= until or not member.path:
        return
    with member.path.open("rb") as file:
        file.seek(begin)
        left = until - begin
        while left:
            piece = file.read(min(left, _CHUNK))
            if not piece:
                raise EOFError(f"{member.path.name} became shorter while it was read")
            left -= len(piece)
            yield piece
