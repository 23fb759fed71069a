"""The folder of uploaded archives: one plain tar each, received whole or not at all."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controlplane import durable, errors
from controlplane.archives import checking, gzip_stream
from controlplane.archives.checking import Contents
from controlplane.errors import Broken, NotFound, Refused

PIECE: Final = 1 << 20
_SUFFIX: Final = ".tar"
_PARTIAL: Final = ".part"
_LOOK_EVERY: Final = 64 << 20  # bytes written between two looks at the free space


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be uploaded: bytes of one archive, and bytes that stay free on the disk."""

    size_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Received:
    """An archive that is here, whole and checked. ``sha256`` is of what can be downloaded."""

    size_bytes: int
    sha256: str
    contents: Contents


class ArchiveShelf:
    """Archives below one folder, by their checkpoints' ids. ``open`` it before use."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self.limits = limits
        self._coming: dict[str, int] = {}  # bytes that uploads under way still need

    def open(self, known: Collection[str]) -> None:
        """Make the folder, and remove what no checkpoint of ``known`` has. Blocks."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = {self._path(one).name for one in known}
        for path in list(self._folder.iterdir()):
            if path.suffix in (_SUFFIX, _PARTIAL) and path.name not in kept:
                path.unlink()

    @asynccontextmanager
    async def receiving(self, archive_id: str, declared_bytes: int) -> AsyncIterator[Receiving]:
        """Take an archive in during the block; unless ``keep`` was called nothing of it is left.

        Args:
            declared_bytes: what the client says that it sends, 0 if it doesn't.

        Raises:
            Refused: PAYLOAD_TOO_LARGE, or INSUFFICIENT_STORAGE.
        """
        if declared_bytes > self.limits.size_bytes + PIECE:  # what surrounds the file is small
            raise too_large(self.limits)
        self._coming[archive_id] = declared_bytes
        receiving = Receiving(self._path(archive_id), self.limits, lambda: self._spare(archive_id))
        try:
            await asyncio.to_thread(receiving.begin, declared_bytes)
            yield receiving
        finally:
            self._coming.pop(archive_id, None)
            await asyncio.shield(asyncio.to_thread(receiving.close))  # goes on when cancelled again

    async def read(
        self, archive_id: str, offset: int = 0, length: int = 0
    ) -> AsyncGenerator[bytes, None]:
        """Bytes from ``offset`` on, ``length`` of them (0: to the end), in pieces of at most 1 MiB.

        An archive that is deleted meanwhile is still read to its end.

        Raises:
            NotFound: it is not here.
            Broken: it is shorter than it was.
        """
        descriptor = await asyncio.to_thread(self._open, archive_id)
        try:
            left = length or (await asyncio.to_thread(os.fstat, descriptor)).st_size - offset
            while left > 0:
                piece = await asyncio.to_thread(os.pread, descriptor, min(left, PIECE), offset)
                if not piece:
                    raise Broken(f"The archive of checkpoint {archive_id} is shorter than it was.")
                offset, left = offset + len(piece), left - len(piece)
                yield piece
        finally:
            os.close(descriptor)

    async def delete(self, archive_id: str) -> None:
        """Remove an archive; one that is gone is no error."""
        await asyncio.to_thread(self._path(archive_id).unlink, missing_ok=True)

    def _open(self, archive_id: str) -> int:
        try:
            return os.open(self._path(archive_id), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as cause:
            raise NotFound(
                f"The archive of checkpoint {archive_id} is not on this server any more.",
                code=errors.CHECKPOINT_NOT_FOUND,
            ) from cause

    def _path(self, archive_id: str) -> Path:
        if not archive_id.isalnum():
            raise ValueError(f"{archive_id!r} is no id")  # ids are made here, never sent
        return self._folder / f"{archive_id}{_SUFFIX}"

    def _spare(self, archive_id: str) -> int:
        """Free bytes that no other upload under way counts on."""
        others = sum(size for one, size in list(self._coming.items()) if one != archive_id)
        state = os.statvfs(self._folder)
        return state.f_bavail * state.f_frsize - others - self.limits.free_bytes


class Receiving:
    """One archive on its way in. Everything that touches the disk happens in threads, one by one."""

    def __init__(self, target: Path, limits: Limits, spare: Callable[[], int]) -> None:
        self._target = target
        self._partial = target.with_suffix(_PARTIAL)
        self._limits = limits
        self._spare = spare
        self._lock = threading.Lock()  # a thread goes on when who awaits it is cancelled
        self._descriptor = -1
        self._reader: gzip_stream.Plain | gzip_stream.Inflating | None = None
        self._hash = hashlib.sha256()
        self._size = 0
        self._looked_at = 0
        self._kept = False

    def begin(self, declared_bytes: int) -> None:
        """Open the file, if the disk has room. Blocks."""
        with self._lock, _disk():
            if self._spare() < declared_bytes:
                raise _full(f"{declared_bytes} bytes were announced")
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(self._partial, flags, 0o600)

    async def write(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises:
            Refused: PAYLOAD_TOO_LARGE, INSUFFICIENT_STORAGE, or its compression is damaged.
        """
        await asyncio.to_thread(self._write, piece)

    async def finish(self) -> Received:
        """No more comes: check the archive.

        Raises:
            Refused: it is no checkpoint's, or not harmless.
        """
        return await asyncio.to_thread(self._finish)

    def keep(self) -> None:
        """It is stored who it belongs to: it stays."""
        self._kept = True

    def close(self) -> None:
        """Close the file; unless it is kept, remove it. Blocks."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
            if not self._kept:
                self._partial.unlink(missing_ok=True)
                self._target.unlink(missing_ok=True)

    def _write(self, piece: bytes) -> None:
        with self._lock, _disk():
            if self._reader is None:
                self._reader = gzip_stream.reader(piece)
            for plain in self._reader.take(piece):
                self._size += len(plain)
                if self._size > self._limits.size_bytes:
                    raise too_large(self._limits)
                self._look()
                self._hash.update(plain)
                view = memoryview(plain)
                while view:
                    view = view[os.write(self._descriptor, view) :]

    def _look(self) -> None:
        if self._size - self._looked_at >= _LOOK_EVERY:
            self._looked_at = self._size
            if self._spare() < 0:
                raise _full(f"{self._size} bytes were written")

    def _finish(self) -> Received:
        with self._lock, _disk():
            if self._reader is None:
                raise Refused("The archive is empty.")
            self._reader.finish()
            contents = checking.check(self._partial)
            os.fsync(self._descriptor)
            self._partial.rename(self._target)
            durable.sync_folder(self._target.parent)
        return Received(self._size, self._hash.hexdigest(), contents)


def too_large(limits: Limits) -> Refused:
    """The archive is larger than is allowed."""
    return Refused(
        f"The archive has more than the {limits.size_bytes} bytes that are allowed "
        "(SNAP_UPLOAD_MAX_BYTES).",
        code=errors.PAYLOAD_TOO_LARGE,
    )


def _full(why: str) -> Refused:
    return Refused(
        "There is no room for the archive on the control plane's disk; free some, or delete "
        "uploaded checkpoints.",
        code=errors.INSUFFICIENT_STORAGE,
        details=why,
    )


@contextmanager
def _disk() -> Iterator[None]:
    """A full disk within the block is INSUFFICIENT_STORAGE, another failure Broken."""
    try:
        yield
    except OSError as cause:
        if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(cause.strerror or "") from cause
        raise Broken("The disk of the control plane failed.", details=str(cause)) from cause
