"""The pages of a process that may come after its restore has begun, and where they lie in a chain of folders."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.formats import core_images, memory_chain, pagemap
from agent.formats.pagemap import LAZY, PAGE_SIZE, Pagemap

MOST_PIECES: Final = 20_000  # each costs some microseconds more than CRIU's own reading
_BATCH_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """``length`` bytes at ``offset`` of a pages file that belong to address ``vaddr``."""

    vaddr: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Pieces of one pages file, ascending: work for one reader."""

    file: Path
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class LatePages:
    """All of one process's. ``pid`` is its number in its own PID namespace."""

    pid: int
    batches: tuple[Batch, ...]

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(piece.length for batch in self.batches for piece in batch.pieces)


def find(images: Path, *, piece_bytes: int) -> LatePages:
    """Those of the only process of ``images`` that has memory. Blocks.

    Args:
        images: the top folder; parents are below it.
        piece_bytes: no piece is larger.

    Raises:
        ValueError: a pagemap is damaged, there is not one process, or its memory is in too many pieces.
    """
    pattern = pagemap.PROCESS_PAGEMAP
    names = [file for file in images.glob("pagemap-*.img") if pattern.fullmatch(file.name)]
    if len(names) != 1:
        raise ValueError(f"{len(names)} processes have memory")
    name = names[0].name
    has_it = itertools.takewhile(
        lambda folder: (folder / name).is_file(), core_images.parents(images)
    )
    folders = [images, *has_it]
    chain = [pagemap.parse((folder / name).read_bytes()) for folder in folders]
    batches: list[Batch] = []
    count = 0
    for depth, pieces in _grouped(_pieces(name, chain, piece_bytes)):
        count += len(pieces)
        if count > MOST_PIECES:
            raise ValueError(f"the memory lies in more than {MOST_PIECES} pieces")
        batches.append(Batch(folders[depth] / f"pages-{chain[depth].pages_id}.img", pieces))
    return LatePages(int(name.removeprefix("pagemap-").removesuffix(".img")), tuple(batches))


def _pieces(name: str, chain: list[Pagemap], most: int) -> Iterator[tuple[int, Piece]]:
    """Level and piece of every page that may come late, in the order of addresses."""
    for run in chain[0]:
        if not run.flags & LAZY or not run.flags & (pagemap.PRESENT | pagemap.IN_PARENT):
            continue
        vaddr, end = run.vaddr, run.vaddr + run.pages * PAGE_SIZE
        while vaddr < end:
            depth, offset, pages = memory_chain.locate(name, chain, vaddr)  # looks at every level
            length = min(pages * PAGE_SIZE, end - vaddr)
            for done in range(0, length, most):
                yield depth, Piece(vaddr + done, offset + done, min(length - done, most))
            vaddr += length


def _grouped(pieces: Iterator[tuple[int, Piece]]) -> Iterator[tuple[int, tuple[Piece, ...]]]:
    """Neighbours of one level together, up to a batch's size."""
    at, held, size = 0, list[Piece](), 0
    for depth, piece in pieces:
        if held and (depth != at or size + piece.length > _BATCH_BYTES):
            yield at, tuple(held)
            held, size = [], 0
        at, size = depth, size + piece.length
        held.append(piece)
    if held:
        yield at, tuple(held)
