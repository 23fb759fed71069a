"""Which pages of a memory are as they were in a base: compared byte by byte, or by their hashes.

While the base's own pages are on this node they are what is compared with: that costs a read of
both, and a first checkpoint nothing. Before they leave the node they are hashed (``hash_pages``).
One thread does it: the work on a page is too short to be worth handing it to another one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.formats import memory_delta
from agent.formats.pagemap import PAGE_SIZE, Pagemap

# A page's hash is half a SHA-256: by chance no two pages meet in it, and whoever could make two meet
# would have to write both into the same place of his own memory.
HASH_BYTES: Final = 16
_BLOCK_PAGES: Final = 32  # compared at once: both blocks stay in the second-level cache


@dataclass(frozen=True, slots=True)
class PagesSource:
    """Where a base's pages of one process are.

    Attributes:
        path: its flat pages file, or the hashes of its pages in order.
        hashed: which of both.
    """

    path: Path
    hashed: bool = False


@dataclass(frozen=True, slots=True)
class _Block:
    """Pages to compare: of which files, where in each, and where the marks go."""

    here: int
    there: int
    hashed: bool
    marks: bytearray
    first: int
    base_first: int
    pages: int


def unchanged(
    folder: Path,
    maps: Mapping[str, Pagemap],
    base: Mapping[str, Pagemap],
    sources: Mapping[str, PagesSource],
) -> dict[str, bytearray]:
    """For each page in ``folder`` whether the base has the same there. Blocking: reads all memory.

    Args:
        folder: of CRIU's images, which ``maps`` are the pagemaps of.
        base: the base's flat pagemaps; ``sources`` their pages.

    Returns:
        file name → one byte for each page of the flat pages file, 1 where it is unchanged.

    Raises:
        OSError: a file can't be read.
    """
    marks = {name: bytearray(flat.stored_bytes // PAGE_SIZE) for name, flat in maps.items()}
    with ExitStack() as opened:

        def descriptor(path: Path) -> int:
            return opened.enter_context(path.open("rb", buffering=0)).fileno()

        for name in maps.keys() & base.keys():
            here = descriptor(folder / f"pages-{maps[name].pages_id}.img")
            there = descriptor(sources[name].path)
            files = here, there, sources[name].hashed, marks[name]
            for block in _blocks(files, maps[name], base[name]):
                _compare(block)
    return marks


def _blocks(
    files: tuple[int, int, bool, bytearray], flat: Pagemap, base: Pagemap
) -> Iterator[_Block]:
    for stretch in memory_delta.stretches(flat, base):
        if stretch.base_offset is None:
            continue
        first, there = stretch.offset // PAGE_SIZE, stretch.base_offset // PAGE_SIZE
        for done in range(0, stretch.pages, _BLOCK_PAGES):
            pages = min(_BLOCK_PAGES, stretch.pages - done)
            yield _Block(*files, first + done, there + done, pages)


def _compare(block: _Block) -> None:
    here = _read(block.here, block.first * PAGE_SIZE, block.pages * PAGE_SIZE)
    size = HASH_BYTES if block.hashed else PAGE_SIZE
    there = _read(block.there, block.base_first * size, block.pages * size)
    if block.hashed:
        here = hashes(here)
    if here == there:
        block.marks[block.first : block.first + block.pages] = b"\1" * block.pages
        return
    for number in range(block.pages):
        start = number * size
        if here[start : start + size] == there[start : start + size]:
            block.marks[block.first + number] = 1


def hashes(pages: bytes) -> bytes:
    """The hashes of ``pages``, one after another."""
    view = memoryview(pages)
    return b"".join(
        hashlib.sha256(view[at : at + PAGE_SIZE]).digest()[:HASH_BYTES]
        for at in range(0, len(pages), PAGE_SIZE)
    )


def hash_pages(pages: Path, out: Path) -> None:
    """Write the hashes of all pages of a flat pages file to ``out``. Blocking.

    Raises:
        OSError: one can't be read, or the other not be written.
    """
    with pages.open("rb", buffering=0) as source, out.open("wb") as target:
        here = source.fileno()
        count = os.fstat(here).st_size // PAGE_SIZE
        for first in range(0, count, _BLOCK_PAGES):
            size = min(_BLOCK_PAGES, count - first) * PAGE_SIZE
            target.write(hashes(_read(here, first * PAGE_SIZE, size)))


def _read(descriptor: int, offset: int, size: int) -> bytes:
    found = os.pread(descriptor, size, offset)
    if len(found) != size:
        raise OSError(f"a file of pages ends after {offset + len(found)} bytes")
    return found
