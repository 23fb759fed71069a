"""A later memory of a container as a delta: base windows where they are, what differs on top of them.

The top folder holds the pages that are new or differ, the folders ``parent`` below it are those of
the base image (``memory_chain.split``), their files under the same names and so under the same
digests. A window of which less than half still counts is written anew at its own place.

Source: as ``memory_chain``.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.formats import memory_chain
from agent.formats.pagemap import IN_PARENT, LAZY, PAGE_SIZE, PRESENT, Pagemap, PageRun

_ANEW_BELOW: Final = 0.5  # a window that still counts by less is written anew
_WORTH_BELOW: Final = 0.5  # of all pages to send; above it the whole memory is a better base
_MAX_RUNS: Final = 1 << 19  # in the top folder: what a reader, and we, keep in memory of it
_NOWHERE: Final = (1 << 64, 1 << 64, 0)  # behind all runs


@dataclass(frozen=True, slots=True)
class Stretch:
    """Pages of a memory that lie together in it, and in the base or nowhere in the base.

    Attributes:
        flags: of the pages' run; without PRESENT there is no content, and ``offset`` says nothing.
        offset: of the first page in the memory's flat pages file, in bytes.
        base_offset: the same in the base's; None: the base has no page at these addresses.
    """

    vaddr: int
    pages: int
    flags: int
    offset: int
    base_offset: int | None


def stretches(flat: Pagemap, base: Pagemap) -> Iterator[Stretch]:
    """All of ``flat``, cut so that each piece is wholly in ``base`` or not at all."""
    held = _present(base)
    start, end, base_offset = next(held, _NOWHERE)
    offset = 0
    for run in flat:
        if not run.flags & PRESENT:
            yield Stretch(run.vaddr, run.pages, run.flags, offset, None)
            continue
        vaddr, stop = run.vaddr, run.vaddr + run.pages * PAGE_SIZE
        while vaddr < stop:
            while end <= vaddr:
                start, end, base_offset = next(held, _NOWHERE)
            upto = min(stop, start if vaddr < start else end)
            there = None if vaddr < start else base_offset + vaddr - start
            yield Stretch(vaddr, (upto - vaddr) // PAGE_SIZE, run.flags, offset, there)
            offset += upto - vaddr
            vaddr = upto


def _present(flat: Pagemap) -> Iterator[tuple[int, int, int]]:
    """Address range and offset of each run that has content."""
    offset = 0
    for run in flat:
        if run.flags & PRESENT:
            length = run.pages * PAGE_SIZE
            yield run.vaddr, run.vaddr + length, offset
            offset += length


@dataclass(frozen=True, slots=True)
class Cut:
    """Parts of the flat ``pages-<pages_id>.img``, in order: one process's pages file of a level."""

    pages_id: int
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    lengths: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, offset: int, length: int) -> None:
        """The next part, in bytes, joined to the last where it goes on there."""
        if self.offsets and self.offsets[-1] + self.lengths[-1] == offset:
            self.lengths[-1] += length
        else:
            self.offsets.append(offset)
            self.lengths.append(length)

    @property
    def length(self) -> int:
        """Of all parts, in bytes."""
        return sum(self.lengths)


@dataclass(frozen=True, slots=True)
class Delta:
    """A memory on top of a base.

    Attributes:
        pagemaps: level → file name → its pagemap there.
        top: what the top folder holds.
        windows: window k lies at level k+1; None: the base's as it is, else what is there instead.
    """

    pagemaps: tuple[Mapping[str, Pagemap], ...]
    top: tuple[Cut, ...]
    windows: tuple[tuple[Cut, ...] | None, ...]


Unchanged = Mapping[str, bytearray]


def delta(
    maps: Mapping[str, Pagemap], base: Mapping[str, Pagemap], window: int, unchanged: Unchanged
) -> Delta | None:
    """``maps`` on top of ``base``; None when too little of the base still counts.

    Args:
        maps: file name → flat pagemap of a process, now.
        base: the same of the base, which was cut in windows of ``window`` bytes.
        unchanged: file name → for each page of the flat pages file 1 where the base has the same
            content at the same address, else 0.

    Raises:
        ValueError: a pagemap is not flat, or two name the same pages file.
    """
    for name, flat in maps.items():
        if any(run.flags & IN_PARENT for run in flat):
            raise ValueError(f"{name} names a parent; only a flat dump can be a delta")
    if len({flat.pages_id for flat in maps.values()}) != len(maps):
        raise ValueError("two pagemaps name the same pages file")
    return _Differ(maps, base, window, unchanged).delta()


class _Differ:
    """Works out one delta."""

    def __init__(
        self,
        maps: Mapping[str, Pagemap],
        base: Mapping[str, Pagemap],
        window: int,
        unchanged: Unchanged,
    ) -> None:
        self._maps, self._base, self._unchanged = maps, base, unchanged
        self._window = window
        self._chain = memory_chain.split(base, window)
        self._starts = memory_chain.starts(base)
        self._empty = Pagemap(b"", 0)
        self._anew = self._outdated()

    def delta(self) -> Delta | None:
        count = len(self._chain.windows)
        levels: list[dict[str, Pagemap]] = [{} for _ in range(count + 1)]
        windows: list[list[Cut]] = [[] for _ in range(count)]
        top: list[Cut] = []
        for name, flat in self._maps.items():
            held = {number: _Part(flat) for number in self._anew}
            above = _Part(flat)
            for run, offset, number in self._pieces(name, flat):
                _place(run, offset, above, held, number)
            levels[0][name] = above.pagemap
            if above.cut.offsets:
                top.append(above.cut)
            for number, part in held.items():
                if part.cut.offsets:
                    windows[number].append(part.cut)
            self._fill_levels(name, held, levels)
        made = Delta(
            tuple(levels),
            tuple(top),
            tuple(tuple(windows[k]) if k in self._anew else None for k in range(count)),
        )
        return made if self._is_worth_it(made) else None

    def _fill_levels(
        self, name: str, held: Mapping[int, _Part], levels: list[dict[str, Pagemap]]
    ) -> None:
        """The base's pagemaps of a process, where a window was written anew with what it has now."""
        for number in range(len(levels) - 1):
            known = self._chain.pagemaps[number + 1].get(name)
            if known is None:
                return  # the chain of a process ends with its first absence
            if number not in held:
                levels[number + 1][name] = known
                continue
            mine = held[number].pagemap
            for run in known:
                if not run.flags & PRESENT:
                    mine.append(run)
            levels[number + 1][name] = mine

    def _outdated(self) -> frozenset[int]:
        """The windows to write anew."""
        kept = [0] * len(self._chain.windows)
        for name, flat in self._maps.items():
            marks = self._unchanged.get(name, b"")
            for stretch in self._cut(name, flat):
                if stretch.base_offset is not None:
                    first = stretch.offset // PAGE_SIZE
                    same = marks.count(1, first, first + stretch.pages)
                    kept[self._number(name, stretch.base_offset)] += same * PAGE_SIZE
        sizes = (sum(part.length for part in window) for window in self._chain.windows)
        return frozenset(
            number for number, size in enumerate(sizes) if kept[number] < size * _ANEW_BELOW
        )

    def _number(self, name: str, base_offset: int) -> int:
        return (self._starts[name] + base_offset) // self._window

    def _cut(self, name: str, flat: Pagemap) -> Iterator[Stretch]:
        """``stretches``, cut where the base's windows end too."""
        for stretch in stretches(flat, self._base.get(name, self._empty)):
            if stretch.base_offset is None:
                yield stretch
                continue
            done = 0
            while done < stretch.pages:
                base_offset = stretch.base_offset + done * PAGE_SIZE
                room = self._window - (self._starts[name] + base_offset) % self._window
                pages = min(stretch.pages - done, room // PAGE_SIZE)
                moved = done * PAGE_SIZE
                yield Stretch(
                    stretch.vaddr + moved, pages, stretch.flags, stretch.offset + moved, base_offset
                )
                done += pages

    def _pieces(self, name: str, flat: Pagemap) -> Iterator[tuple[PageRun, int, int | None]]:
        """The runs as the top folder has them, with offset and, of those in a parent, the window."""
        marks = self._unchanged.get(name, bytearray())
        for stretch in self._cut(name, flat):
            if not stretch.flags & PRESENT or stretch.base_offset is None:
                run = PageRun(stretch.vaddr, stretch.pages, stretch.flags)
                yield run, stretch.offset, None
                continue
            number = self._number(name, stretch.base_offset)
            if number in self._anew:
                run = PageRun(stretch.vaddr, stretch.pages, stretch.flags)
                yield run, stretch.offset, number
                continue
            first = stretch.offset // PAGE_SIZE
            for at, pages, same in _alternating(marks, first, first + stretch.pages):
                vaddr = stretch.vaddr + (at - first) * PAGE_SIZE
                run = PageRun(vaddr, pages, stretch.flags)
                yield run, at * PAGE_SIZE, number if same else None

    def _is_worth_it(self, made: Delta) -> bool:
        if sum(map(len, made.pagemaps[0].values())) > _MAX_RUNS:
            return False
        cuts = [*made.top, *(cut for window in made.windows for cut in window or ())]
        total = sum(flat.stored_bytes for flat in self._maps.values())
        return sum(cut.length for cut in cuts) < total * _WORTH_BELOW


class _Part:
    """A pagemap that grows, and where its pages are."""

    def __init__(self, flat: Pagemap) -> None:
        self.pagemap = Pagemap(flat.magic, flat.pages_id)
        self.cut = Cut(flat.pages_id)

    def take(self, run: PageRun, offset: int) -> None:
        """Pages that are here."""
        self.pagemap.append(run)
        self.cut.add(offset, run.pages * PAGE_SIZE)


def _place(
    run: PageRun, offset: int, above: _Part, held: Mapping[int, _Part], number: int | None
) -> None:
    """Put one piece where it belongs: into the top folder, or named there and in a window."""
    if not run.flags & PRESENT:
        above.pagemap.append(run)
        return
    if number is None:
        above.take(run, offset)
        return
    above.pagemap.append(PageRun(run.vaddr, run.pages, IN_PARENT | run.flags & LAZY))
    if number in held:
        held[number].take(run, offset)


def _alternating(marks: bytearray, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Where ``marks`` are equal in a row between ``start`` and ``end``: first, how many, whether 1."""
    while start < end:
        same = marks[start] == 1
        found = marks.find(0 if same else 1, start, end)
        stop = end if found < 0 else found
        yield start, stop - start, same
        start = stop
