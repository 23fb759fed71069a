"""A chain of memory folders made flat: for ``criu lazy-pages``, which does not start over a chain, and for dumps
that are to be cut again.

Pages are copied by the kernel, file to file; where the file system can share blocks they are not even copied.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from agent.formats import layout, memory_chain, pagemap
from agent.formats.memory_chain import Extents, Flat
from agent.image.room import Budget

_PARENT_DIR: Final = layout.CHECKPOINT_DIR + "/parent"
_COPY_BYTES: Final = 1 << 20
_NOT_BY_KERNEL: Final = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def is_chain(parts: Path) -> bool:
    """Whether the memory lies in several folders."""
    return (parts / _PARENT_DIR).is_dir()


def levels(parts: Path) -> list[dict[str, pagemap.Pagemap]]:
    """The pagemaps of processes in the top folder and in each ``parent`` below it.

    Raises:
        ValueError: one is damaged.
    """
    found: list[dict[str, pagemap.Pagemap]] = []
    while len(found) <= memory_chain.MAX_LEVELS:
        here = parts / memory_chain.folder(len(found))
        if not here.is_dir():
            break
        found.append(
            {
                path.name: pagemap.parse(path.read_bytes())
                for path in sorted(here.iterdir())
                if pagemap.PROCESS_PAGEMAP.fullmatch(path.name)
            }
        )
    return found


def flat_bytes(parts: Path) -> int:
    """How large the flat pages of ``parts`` are. Blocking; raises as ``levels``."""
    return sum(memory_chain.flatten(levels(parts)).sizes.values())


def beside(parts: Path, into: Path) -> None:
    """Fill the empty folder ``into`` with the same checkpoint, flat; all but memory is linked. Blocking.

    Raises:
        ValueError: the chain does not hold together.
        OSError: the disk failed.
    """
    flat = memory_chain.flatten(levels(parts))
    chain, images = parts / _PARENT_DIR, parts / layout.CHECKPOINT_DIR
    anew = {*flat.pagemaps, *map(_pages_name, flat.sizes)}
    for path in sorted(parts.rglob("*")):
        name = path.relative_to(parts)
        if path == chain or chain in path.parents:
            continue
        if path.is_dir():
            (into / name).mkdir(0o700)
        elif path.parent != images or path.name not in anew:
            os.link(path, into / name)
    _write(parts, flat, into / layout.CHECKPOINT_DIR)


def in_place(parts: Path, budget: Budget) -> None:
    """Make ``parts`` flat, within ``budget``. Blocking; raised, there is rubbish in the folder.

    Raises:
        Refused: there is no room.
        ValueError, OSError: as ``beside``.
    """
    if not is_chain(parts):
        return
    flat = memory_chain.flatten(levels(parts))
    budget.take(sum(flat.sizes.values()))
    images = parts / layout.CHECKPOINT_DIR
    partial = images / ".flat"
    partial.mkdir(0o700)
    _write(parts, flat, partial)
    shutil.rmtree(parts / _PARENT_DIR)
    for path in partial.iterdir():
        path.replace(images / path.name)
    partial.rmdir()


def _pages_name(number: int) -> str:
    return f"pages-{number}.img"


def _write(parts: Path, flat: Flat, into: Path) -> None:
    """Flat pages and pagemaps."""
    for number, size in flat.sizes.items():
        with (into / _pages_name(number)).open("xb") as out:
            out.truncate(size)
    for (level, number), file in flat.sources.items():
        path = parts / memory_chain.folder(level) / _pages_name(number)
        if (path.stat().st_size if path.exists() else 0) != file.size:
            raise ValueError(f"{path.name} of level {level} does not have {file.size} bytes")
        if file.size:
            _copy(path, into / _pages_name(file.target_id), file.extents)
    for base, one in flat.pagemaps.items():
        (into / base).write_bytes(one.image())


def _copy(source: Path, target: Path, extents: Extents) -> None:
    with _opened(source, os.O_RDONLY) as reading, _opened(target, os.O_WRONLY) as writing:
        for start, place, length in extents:
            for first, last in _data(reading, start, start + length):
                done = first
                while done < last:
                    run = done, place + done - start, last - done
                    done += _copy_some(reading, writing, run)


def _data(file: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts between ``start`` and ``end`` that are no holes; what is copied to is empty as yet."""
    while start < end:
        try:
            first = os.lseek(file, start, os.SEEK_DATA)
        except OSError as cause:
            if cause.errno != errno.ENXIO:
                raise
            return  # a hole up to the end of the file
        if first >= end:
            return
        start = min(end, os.lseek(file, first, os.SEEK_HOLE))
        yield first, start


def _copy_some(reading: int, writing: int, run: tuple[int, int, int]) -> int:
    """Copy the beginning of ``run`` (from, to, length in bytes); how much it was."""
    start, place, length = run
    try:
        copied = os.copy_file_range(reading, writing, length, start, place)
    except OSError as cause:
        if cause.errno not in _NOT_BY_KERNEL:
            raise
        piece = os.pread(reading, min(length, _COPY_BYTES), start)
        copied = os.pwrite(writing, piece, place)
    if not copied:
        raise ValueError("a pages file became shorter while it was read")
    return copied


@contextmanager
def _opened(path: Path, how: int) -> Iterator[int]:
    descriptor = os.open(path, how | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
