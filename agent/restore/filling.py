"""Unpacking a tar of files into a folder of the new container, step by step, with the way back written first.

Safe where other containers of the pod already run: nothing is reached through a symbolic link, every name is
opened from its folder's descriptor. Whiteouts (OCI form) become overlayfs' own.

Source: OCI image specification, layer.md, "Whiteouts"; kernel, Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import IO, Any, Final

from agent.restore.undoing import UndoList

WHITEOUT: Final = ".wh."
OPAQUE: Final = ".wh..wh..opq"
_XATTR: Final = "SCHILY.xattr."
# Not trusted.overlay.*: a crafted one would redirect a folder to any other of the lower layers.
_XATTRS_ALLOWED: Final = ("user.", "security.capability", "system.posix_acl_")
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """A folder to fill: as this process reaches it, and as the node names it (for undoing).

    Attributes:
        aside, aside_on_node: an empty folder (made when needed) for what must make room.
        whiteouts: whether the folder is an overlay's upper directory.
    """

    folder: Path
    on_node: str
    aside: Path
    aside_on_node: str
    whiteouts: bool = False


def fill(
    archive: Path,
    place: Place,
    undo: UndoList,
    *,
    check: Callable[[], None],
    wanted: Callable[[str], bool] = lambda _: True,
) -> int:
    """Unpack ``archive`` into ``place``; what was there under a name of the archive makes room. Blocks.

    Args:
        archive: a tar, plain or compressed.
        place: where to.
        undo: told of every change before it is made.
        check: called often; raises when there is no time left.
        wanted: whether a name of the first level is wanted.

    Returns:
        The number of members written.

    Raises:
        OSError, ValueError, tarfile.TarError: as far as it got, ``undo`` knows.
    """
    root = os.open(place.folder, _FOLDER)
    try:
        with tarfile.open(archive, "r:*") as tar:
            return _Filler(root, place, undo, check).run(tar, wanted)
    finally:
        os.close(root)


@dataclass(slots=True)
class _Filler:
    root: int
    place: Place
    undo: UndoList
    check: Callable[[], None]
    seen: set[str] = field(default_factory=set)  # of the first level, has made room
    times: list[tuple[tuple[str, ...], int]] = field(default_factory=list)

    def run(self, tar: tarfile.TarFile, wanted: Callable[[str], bool]) -> int:
        count = 0
        while member := tar.next():
            tar.members = []  # type: ignore[attr-defined]  # else it grows with the archive
            self.check()
            parts = _parts(member.name)
            if parts in ((), (OPAQUE,)):  # the folder itself keeps what the new pod gave it
                continue
            if wanted(first := _plain(parts[0])):
                self._make_room(first)
                self._write(tar, member, parts)
                count += 1
        for parts, mtime_ns in reversed(self.times):
            with self._folder(parts) as folder:
                os.utime(folder, ns=(mtime_ns, mtime_ns))
        return count

    def _make_room(self, name: str) -> None:
        """For the first member under each name of the first level."""
        if name in self.seen:
            return
        self.seen.add(name)
        there, kept = f"{self.place.on_node}/{name}", f"{self.place.aside_on_node}/{name}"
        self.undo.remove(there)
        with contextlib.suppress(FileNotFoundError):
            os.stat(name, dir_fd=self.root, follow_symlinks=False)
            self.place.aside.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.undo.put_back(kept, there)
            self._move_aside(name)

    def _move_aside(self, name: str) -> None:
        try:
            os.rename(name, self.place.aside / name, src_dir_fd=self.root)
        except OSError as cause:
            if cause.errno != errno.EXDEV:
                raise
            where = f"{self.place.on_node}/{name}"
            raise ValueError(
                f"{where} is in the way and can't be moved within its mount"
            ) from cause

    @contextlib.contextmanager
    def _folder(self, parts: tuple[str, ...]) -> Iterator[int]:
        """A descriptor of the folder ``parts`` below the root; missing ones are made."""
        descriptor = os.dup(self.root)
        try:
            for part in parts:
                try:
                    below = os.open(part, _FOLDER, dir_fd=descriptor)
                except FileNotFoundError:
                    os.mkdir(part, 0o755, dir_fd=descriptor)
                    below = os.open(part, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)

    def _write(self, tar: tarfile.TarFile, member: tarfile.TarInfo, parts: tuple[str, ...]) -> None:
        *above, name = parts
        with self._folder(tuple(above)) as folder:
            if self.place.whiteouts and name == OPAQUE:
                os.setxattr(folder, "trusted.overlay.opaque", b"y")
            elif self.place.whiteouts and name.startswith(WHITEOUT):
                _vacate(name[len(WHITEOUT) :], folder)
                device = os.makedev(0, 0)
                os.mknod(name[len(WHITEOUT) :], stat.S_IFCHR, device, dir_fd=folder)
            elif member.isdir():
                self._write_folder(member, parts, folder)
            elif member.islnk():
                self._write_link(member, name, folder)
            elif member.issym():
                _vacate(name, folder)
                os.symlink(member.linkname, name, dir_fd=folder)
                os.chown(name, member.uid, member.gid, dir_fd=folder, follow_symlinks=False)
                mtime_ns = _mtime_ns(member)
                os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=folder, follow_symlinks=False)
            elif member.isreg():
                self._write_file(tar, member, name, folder)
            else:
                self._write_node(member, name, folder)

    def _write_folder(self, member: tarfile.TarInfo, parts: tuple[str, ...], above: int) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(parts[-1], 0o700, dir_fd=above)
        descriptor = os.open(parts[-1], _FOLDER, dir_fd=above)
        try:
            _own(descriptor, member)
        finally:
            os.close(descriptor)
        self.times.append((parts, _mtime_ns(member)))

    def _write_link(self, member: tarfile.TarInfo, name: str, folder: int) -> None:
        *above, target = _parts(member.linkname)
        if not self.seen.issuperset({above[0] if above else target}):
            raise ValueError(
                f"{member.name} links to {member.linkname}, which is not in the archive"
            )
        _vacate(name, folder)
        with self._folder(tuple(above)) as source:
            os.link(target, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)

    def _write_file(
        self, tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, folder: int
    ) -> None:
        _vacate(name, folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        source = tar.extractfile(member)
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=folder), "wb", buffering=0) as stream:
            for offset, size in _pieces(member):
                if source:
                    source.seek(offset)
                    stream.seek(offset)
                    self._copy(source, size, stream.fileno())
            os.ftruncate(stream.fileno(), member.size)
            _own(stream.fileno(), member)
            mtime_ns = _mtime_ns(member)
            os.utime(stream.fileno(), ns=(mtime_ns, mtime_ns))

    def _copy(self, source: IO[bytes], left: int, target: int) -> None:
        """Copy ``left`` bytes. Holes stay holes: pieces of zeros are skipped."""
        while piece := source.read(min(_CHUNK, left)):
            left -= len(piece)
            self.check()
            if piece.count(0) == len(piece):
                os.lseek(target, len(piece), os.SEEK_CUR)
                continue
            view = memoryview(piece)
            while view:
                view = view[os.write(target, view) :]

    def _write_node(self, member: tarfile.TarInfo, name: str, folder: int) -> None:
        """A FIFO, or a device in an upper directory (there the device cgroup decides, as it did before)."""
        kind = {tarfile.FIFOTYPE: stat.S_IFIFO}
        if self.place.whiteouts:
            kind |= {tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK}
        if member.type not in kind:
            raise ValueError(f"{member.name} is of a kind that is not restored")
        _vacate(name, folder)
        device = os.makedev(member.devmajor, member.devminor)
        os.mknod(name, kind[member.type] | stat.S_IMODE(member.mode), device, dir_fd=folder)
        os.chown(name, member.uid, member.gid, dir_fd=folder, follow_symlinks=False)
        os.chmod(name, stat.S_IMODE(member.mode), dir_fd=folder)


def _plain(name: str) -> str:
    """The name that a member is about, a whiteout's without its prefix."""
    return name if name == OPAQUE else name.removeprefix(WHITEOUT)


def _parts(name: str) -> tuple[str, ...]:
    """A member's path in parts; empty for the root itself.

    Raises:
        ValueError: it would leave the folder.
    """
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts or any("\n" in part for part in parts[:1]):
        raise ValueError(f"{name!r} is no name for a file of a container")
    return parts


def _vacate(name: str, folder: int) -> None:
    """A name that the archive has twice: the later one counts."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def _pieces(member: tarfile.TarInfo) -> list[tuple[int, int]]:
    """Where a file's content is, and how much: all of it, but for files that were packed with their holes."""
    packed: Any = member.sparse  # a list of such pairs, whatever its stubs say
    return packed or [(0, member.size)]


def _own(descriptor: int, member: tarfile.TarInfo) -> None:
    """Owner first: changing it would clear the set-id bits and file capabilities."""
    os.fchown(descriptor, member.uid, member.gid)
    os.fchmod(descriptor, stat.S_IMODE(member.mode))
    for key, value in member.pax_headers.items():
        name = key.removeprefix(_XATTR)
        if name != key and name.startswith(_XATTRS_ALLOWED):
            raw = value.encode("utf-8", "surrogateescape")
            os.setxattr(descriptor, name, raw)


def _mtime_ns(member: tarfile.TarInfo) -> int:
    try:
        return int(Decimal(member.pax_headers.get("mtime", str(member.mtime))) * 1_000_000_000)
    except InvalidOperation:
        return int(member.mtime) * 1_000_000_000
