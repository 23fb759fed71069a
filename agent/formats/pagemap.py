"""A process's pagemap: which of its pages are in which place of ``pages-<N>.img``.

Kept in arrays: a process of 100 GiB may have a million runs.

Source: CRIU, images/pagemap.proto and criu/pagemap.c.
"""

from __future__ import annotations

import itertools
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final

from agent.formats import criu_images, criu_wire
from agent.formats.criu_images import PAGE_SIZE
from agent.formats.criu_wire import IN_PARENT, LAZY, PRESENT, PageRun

PROCESS_PAGEMAP: Final = re.compile(r"pagemap-[0-9]+\.img")  # pagemap-shmem-… is shared memory
PAGES_FILE: Final = re.compile(r"pages-([0-9]+)\.img")


class Pagemap:
    """The runs of one pagemap image, ascending by address, none over another.

    Attributes:
        magic: the image's first bytes, kept as they came.
        pages_id: the N of the ``pages-<N>.img`` beside it.
    """

    __slots__ = ("_flags", "_offsets", "_pages", "_vaddrs", "magic", "pages_id")

    def __init__(self, magic: bytes, pages_id: int, runs: Iterable[PageRun] = ()) -> None:
        """Take ``runs``; ``ValueError`` when they are empty, overlap or are out of order."""
        self.magic = magic
        self.pages_id = pages_id
        self._vaddrs = array("Q")
        self._pages = array("Q")
        self._flags = array("Q")
        self._offsets = array("Q", [0])  # into the pages file, in front of each run
        for run in runs:
            self.append(run)

    def append(self, run: PageRun) -> None:
        """Add a run behind the last one."""
        last_end = self._vaddrs[-1] + self._pages[-1] * PAGE_SIZE if self._vaddrs else 0
        end = run.vaddr + run.pages * PAGE_SIZE
        if run.pages < 1 or run.vaddr < last_end or run.vaddr % PAGE_SIZE or end >= 1 << 64:
            raise ValueError(f"the pagemap's run at {run.vaddr:#x} is empty or out of order")
        if run.flags & PRESENT and run.flags & IN_PARENT:
            raise ValueError(f"the pagemap's run at {run.vaddr:#x} is here and in the parent")
        self._vaddrs.append(run.vaddr)
        self._pages.append(run.pages)
        self._flags.append(run.flags)
        stored = run.pages * PAGE_SIZE if run.flags & PRESENT else 0
        self._offsets.append(self._offsets[-1] + stored)

    def lengthen(self, pages: int) -> None:
        """Add pages to the end of the last run."""
        self._pages[-1] += pages
        if self._flags[-1] & PRESENT:
            self._offsets[-1] += pages * PAGE_SIZE

    def __len__(self) -> int:
        return len(self._vaddrs)

    def __iter__(self) -> Iterator[PageRun]:
        return map(PageRun, self._vaddrs, self._pages, self._flags)

    @property
    def stored_bytes(self) -> int:
        """How large its pages file is."""
        return int(self._offsets[-1])

    def find(self, vaddr: int) -> tuple[PageRun, int] | None:
        """The run that holds ``vaddr`` and that run's offset in the pages file, in bytes."""
        index = bisect_right(self._vaddrs, vaddr) - 1
        if index < 0 or vaddr >= self._vaddrs[index] + self._pages[index] * PAGE_SIZE:
            return None
        run = PageRun(self._vaddrs[index], self._pages[index], self._flags[index])
        return run, self._offsets[index]

    def image(self) -> bytes:
        """The file's content."""
        runs = map(criu_wire.page_run, self)
        head = [criu_wire.pages_id(self.pages_id)]
        return criu_images.build(self.magic, itertools.chain(head, runs))


def parse(image: bytes) -> Pagemap:
    """The pagemap in ``image``.

    Raises:
        ValueError: it is damaged.
    """
    messages = criu_images.entries(image)
    head = next(messages, None)
    if head is None:
        raise ValueError("the pagemap is empty")
    runs = map(criu_wire.page_run_of, messages)
    return Pagemap(criu_images.magic_of(image), criu_wire.pages_id_of(head), runs)


__all__ = ["IN_PARENT", "LAZY", "PAGE_SIZE", "PRESENT", "PageRun", "Pagemap", "parse"]
