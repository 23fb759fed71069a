"""Folders that are there wholly or not at all, whatever ends the agent or the machine.

``<name>`` is whole; ``<name>.tmp-…`` is being made or removed, or was when an agent died, and is swept at
the next start. ``<name>.unsynced`` names the boot in which the folder was made while it is not yet on the
disk for sure: after a power cut such a folder is not believed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from agent.runtimes import commands

_log: Final = logging.getLogger(__name__)
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_HALF: Final = ".tmp-"
_UNSURE: Final = ".unsynced"
_STEP_S: Final = 60.0  # a rename, or the removal of a large folder


def sweep(root: Path) -> list[Path]:
    """Remove what is half-done or not surely on the disk from ``root``, made if need be; what is left."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    boot = _BOOT_ID.read_text()
    for path in list(root.iterdir()):
        if _HALF in path.name:
            delete(path)
        elif path.suffix == _UNSURE and path.read_text() != boot:
            delete(path.with_suffix(""))
    return [path for path in root.iterdir() if path.is_dir()]


@asynccontextmanager
async def making(folder: Path) -> AsyncIterator[Path]:
    """A new empty place, which is ``folder`` after the block; gone without a trace if the block fails.

    Each step is seen through when the caller is cancelled, even twice: no thread is left at work.
    """
    partial = folder.with_name(f"{folder.name}{_HALF}{secrets.token_hex(4)}")
    try:
        await _seen_through(partial.mkdir, 0o700, True)
        yield partial
        await _seen_through(_settle, partial, folder)
    except BaseException:
        await _seen_through(delete, partial)
        await _seen_through(delete, folder)  # it was settled before the cancellation was heard of
        raise


async def _seen_through(step: Callable[..., None], *arguments: object) -> None:
    await commands.finish(asyncio.to_thread(step, *arguments), _STEP_S)


def _settle(partial: Path, folder: Path) -> None:
    """Make a whole folder findable; failed, it is not."""
    try:
        _mark(folder).write_text(_BOOT_ID.read_text())
        partial.rename(folder)
    except OSError:  # a full disk, say
        _mark(folder).unlink(missing_ok=True)
        raise
    os.utime(folder, (time.time(), time.time()))


def sync(folder: Path) -> None:
    """Bring a folder to the disk, then believe it for ever. Removed meanwhile: nothing to do."""
    if not _mark(folder).exists():
        return
    try:
        for path in [*folder.rglob("*"), folder, folder.parent]:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        _mark(folder).unlink()
    except FileNotFoundError:
        pass
    except OSError as cause:
        _log.warning("%s is not surely on the disk: %s", folder, cause)


def delete(folder: Path) -> None:
    """Remove a folder so that a death in the middle leaves nothing that looks whole."""
    doomed = folder
    if _HALF not in folder.name and folder.exists():
        doomed = folder.with_name(f"{folder.name}{_HALF}{secrets.token_hex(4)}")
        folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
    with suppress(FileNotFoundError):
        _mark(folder).unlink()


def size(folder: Path, seen: set[tuple[int, int]]) -> int:
    """Bytes of ``folder``'s files, without those in ``seen`` (device, inode), to which they are added."""
    total = 0
    for path in folder.rglob("*"):
        state = path.lstat()
        if (state.st_dev, state.st_ino) not in seen:
            seen.add((state.st_dev, state.st_ino))
            total += state.st_size
    return total


def own_bytes(folder: Path) -> int:
    """The same of a folder that was just made: files that have another name were there before."""
    states = (path.lstat() for path in folder.rglob("*"))
    return sum(one.st_size for one in states if stat.S_ISDIR(one.st_mode) or one.st_nlink == 1)


def _mark(folder: Path) -> Path:
    return folder.with_name(folder.name + _UNSURE)
