"""The pages of one process, or of one shared memory, as they lie in ``pages-<N>.img``.

Nothing is held: the pagemap is read through a mapping of its file, pages by ``pread``. Only of the folders named
``parent`` (incremental dumps) the pagemaps are kept, in arrays.

Source: CRIU, criu/pagemap.c; criu/include/crtools.h (``CR_PARENT_LINK``).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from agent.formats import criu_images, criu_wire
from agent.formats.criu_images import PAGE_SIZE
from agent.formats.criu_wire import IN_PARENT, PRESENT, PageRun
from agent.formats.pagemap import Pagemap
from agent.insights import opening
from agent.insights.bounds import damaged

PARENT: Final = "parent"
MAX_LEVELS: Final = 64  # a chain of folders that goes deeper was not made by anybody sane
CHUNK: Final = 1 << 20
_ADDRESS_END: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive pages whose content is at ``offset`` of one pages file (``level``: 0 is the dump's own folder)."""

    vaddr: int
    size_bytes: int
    level: int
    offset: int

    @property
    def end(self) -> int:
        """The address behind it."""
        return self.vaddr + self.size_bytes


class Memory:
    """The dumped pages behind ``pagemap-<name>.img``; a context manager, it holds the pages files open.

    Raises:
        Refused: the images are damaged (from any method).
    """

    def __init__(self, images: Path, name: str) -> None:
        self._image = f"pagemap-{name}.img"
        self._images = images
        self._held = ExitStack()
        self._view = _mapped(images / self._image)
        try:
            self._open_levels()
        except ValueError as cause:
            self._held.close()
            raise damaged(self._image, cause) from cause

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def stretches(self) -> Iterator[Stretch]:
        """Where the content of every dumped page is, ascending by address."""
        try:
            yield from self._stretches()
        except ValueError as cause:
            raise damaged(self._image, cause) from cause

    def read(self, start: int, end: int) -> bytes | None:
        """The bytes of [start, end); pages that were not dumped read as zeros, None if there is none at all."""
        found = bytearray(max(0, end - start))
        is_there = False
        for stretch in self.stretches():
            if stretch.vaddr >= end:
                break
            low, high = max(start, stretch.vaddr), min(end, stretch.end)
            if low < high:
                is_there = True
                at = stretch.offset + low - stretch.vaddr
                found[low - start : high - start] = self._pread(stretch.level, at, high - low)
        return bytes(found) if is_there else None

    def chunks(self, size: int = CHUNK) -> Iterator[tuple[int, bytes]]:
        """All dumped content in pieces of at most ``size`` bytes: (address, bytes), ascending."""
        for stretch in self.stretches():
            for at in range(0, stretch.size_bytes, size):
                length = min(size, stretch.size_bytes - at)
                yield stretch.vaddr + at, self._pread(stretch.level, stretch.offset + at, length)

    def stored_bytes(self) -> int:
        """How much was dumped, wherever it lies."""
        return sum(stretch.size_bytes for stretch in self.stretches())

    def _open_levels(self) -> None:
        """The pages files, the dump's own first, then each parent's with its pagemap."""
        head = next(criu_images.entries(self._view), None)
        if head is None:
            raise ValueError("it has no entry")
        self._pages = [self._descriptor(self._images, criu_wire.pages_id_of(head))]
        self._parents: list[Pagemap] = []
        folder = self._images / PARENT
        while folder.is_dir() and len(self._parents) < MAX_LEVELS:
            file = folder / self._image
            if file.exists():
                pagemap = _parsed(_mapped(file))
                self._parents.append(pagemap)
                self._pages.append(self._descriptor(folder, pagemap.pages_id))
            folder = folder / PARENT

    def _descriptor(self, folder: Path, number: int) -> int:
        try:
            opened = opening.descriptor(folder / f"pages-{number}.img")
        except FileNotFoundError:
            return -1  # a process without pages has none
        self._held.callback(os.close, opened)
        return opened

    def _stretches(self) -> Iterator[Stretch]:
        offset, last_end = 0, 0
        messages = criu_images.entries(self._view)
        next(messages)
        for run in map(criu_wire.page_run_of, messages):
            size = run.pages * PAGE_SIZE
            end = run.vaddr + size
            if run.pages < 1 or run.vaddr < last_end or run.vaddr % PAGE_SIZE or end > _ADDRESS_END:
                raise ValueError(f"the run at {run.vaddr:#x} is empty or out of order")
            last_end = end
            if run.flags & IN_PARENT:
                yield from self._from_parents(run.vaddr, end, 0)
            elif run.flags & PRESENT:
                yield Stretch(run.vaddr, size, 0, offset)
                offset += size

    def _from_parents(self, start: int, end: int, parent: int) -> Iterator[Stretch]:
        """The pages of [start, end) as the chain from ``parent`` on has them."""
        at = start
        while at < end:
            if parent >= len(self._parents):
                raise ValueError(f"the page at {at:#x} is in a parent that is not there")
            found = self._parents[parent].find(at)
            if found is None:
                raise ValueError(f"the page at {at:#x} is not in the parent")
            run, offset = found
            upto = min(end, run.vaddr + run.pages * PAGE_SIZE)
            if run.flags & IN_PARENT:
                yield from self._from_parents(at, upto, parent + 1)
            elif run.flags & PRESENT:
                yield Stretch(at, upto - at, parent + 1, offset + at - run.vaddr)
            at = upto

    def _pread(self, level: int, offset: int, length: int) -> bytes:
        descriptor = self._pages[level]
        content = b"" if descriptor < 0 else os.pread(descriptor, length, offset)
        if len(content) != length:
            raise damaged(self._image, "its pages file is missing or shorter than it says")
        return content


def _mapped(file: Path) -> memoryview:
    """The file's content, read as it is looked at."""
    with os.fdopen(opening.descriptor(file), "rb") as opened:
        if os.fstat(opened.fileno()).st_size == 0:
            raise damaged(file.name, "it is empty")
        return memoryview(mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ))


def _parsed(view: memoryview) -> Pagemap:
    messages = criu_images.entries(view)
    head = next(messages, None)
    if head is None:
        raise ValueError("a parent's pagemap has no entry")
    runs: Iterator[PageRun] = map(criu_wire.page_run_of, messages)
    return Pagemap(criu_images.magic_of(view), criu_wire.pages_id_of(head), runs)
