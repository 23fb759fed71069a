"""A container's file changes, from an overlay's upper directory to an OCI layer.

An upper directory marks a deleted file by a character device 0:0 and a directory that hides the one
below by an extended attribute; a layer uses empty files named ``.wh.<name>`` and ``.wh..wh..opq``.

Source: kernel documentation, filesystems/overlayfs.rst; OCI image specification, layer.md; PAX
records ``SCHILY.xattr.<name>`` as GNU tar writes them.
"""

from __future__ import annotations

import tarfile
from pathlib import PurePosixPath
from typing import IO, Final

WHITEOUT: Final = ".wh."
OPAQUE: Final = ".wh..wh..opq"
XATTR: Final = "SCHILY.xattr."
_OVERLAY: Final = "trusted.overlay."
_OPAQUE_XATTR: Final = _OVERLAY + "opaque"
# without these the content of a file or directory is elsewhere, and no layer can say so
_ELSEWHERE: Final = (_OVERLAY + "redirect", _OVERLAY + "metacopy")


class OverlayError(ValueError):
    """The changes can't be expressed in a layer."""


def upper_to_layer(upper: IO[bytes], layer: IO[bytes]) -> None:
    """Write the tar ``upper`` (of an upper directory, all extended attributes in it) as a layer.

    Both are streams; deterministic: the same input gives the same bytes.

    Raises:
        OverlayError: a renamed directory or a file without its data (overlay features
            ``redirect_dir``, ``metacopy``), which a layer can't express.
        tarfile.TarError: ``upper`` is damaged.
    """
    gone: set[str] = set()
    with (
        tarfile.open(fileobj=upper, mode="r|", errorlevel=2) as source,
        _writer(layer) as target,
    ):
        for member in source:
            _forget(source)
            name = str(PurePosixPath(member.name))
            if _is_whiteout(member) or (member.islnk() and _clean(member.linkname) in gone):
                gone.add(name)
                target.addfile(_empty(_sibling(name, WHITEOUT + PurePosixPath(name).name)))
                continue
            opaque = _strip_overlay(member, name)
            member.name = name
            if member.islnk():
                member.linkname = _clean(member.linkname)
            _add(source, target, member)
            if opaque:
                target.addfile(_empty(str(PurePosixPath(name) / OPAQUE)))


def _forget(archive: tarfile.TarFile) -> None:
    """Drop the headers that tarfile keeps of every member: memory would grow with their number."""
    archive.members = []  # type: ignore[attr-defined]


def _clean(name: str) -> str:
    return str(PurePosixPath(name))


def _sibling(name: str, other: str) -> str:
    return str(PurePosixPath(name).parent / other)


def _writer(target: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT)


def _is_whiteout(member: tarfile.TarInfo) -> bool:
    return member.ischr() and member.devmajor == 0 and member.devminor == 0


def _strip_overlay(member: tarfile.TarInfo, name: str) -> bool:
    """Take the overlay's own attributes off ``member``; whether it hid the directory below."""
    headers = member.pax_headers
    for attribute in _ELSEWHERE:
        if XATTR + attribute in headers:
            raise OverlayError(f"/{name} was renamed or has its data elsewhere ({attribute})")
    opaque = headers.get(XATTR + _OPAQUE_XATTR) == "y"
    kept = {
        key: value
        for key, value in headers.items()
        if key.startswith(XATTR) and not key.startswith(XATTR + _OVERLAY)
    }
    member.pax_headers = kept
    member.mtime = int(member.mtime) if float(member.mtime).is_integer() else member.mtime
    return opaque


def _empty(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = 0o600
    return info


def _add(source: tarfile.TarFile, target: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    content = source.extractfile(member) if member.isreg() else None
    target.addfile(member, content)
    _forget(target)
