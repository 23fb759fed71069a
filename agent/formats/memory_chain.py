"""The memory of a dump as windows in nested folders named ``parent``, and back to one flat folder.

Window k of a process's pages is ``checkpoint/`` + ``parent/`` (k+1 times) + ``pages-<N>.img``;
the top folder says of every page that it is in the parent. That is CRIU's own format for iterative
dumps, so every reader restores it. A delta holds changed pages in the top folder; ``flatten``
understands pages at any level.

In the folders between, pages of deeper windows are covered by one run over all of them (a reader
comes there only for addresses that the folder above named), so pagemaps do not grow with the
windows.

Source: CRIU, criu/pagemap.c (``try_open_parent``, ``seek_pagemap``, ``read_parent_page``).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.formats.pagemap import IN_PARENT, LAZY, PAGE_SIZE, PRESENT, Pagemap, PageRun

MAX_LEVELS: Final = 33  # the top folder and 32 parents
MIN_WINDOW_BYTES: Final = 32 << 20
MAX_WINDOWS: Final = 30  # of a full image; two levels are left to deltas
_ROUND: Final = 1 << 20  # windows keep their cuts when a process grows by a little
_MAX_SPAN_PAGES: Final = 1 << 30  # CRIU counts pages of a run in an int


@dataclass(frozen=True, slots=True)
class Slice:
    """``length`` bytes at ``offset`` of the flat ``pages-<pages_id>.img``."""

    pages_id: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Chain:
    """A flat memory, cut.

    Attributes:
        windows: window k's files, each a slice of a flat one; it lies at level k+1.
        pagemaps: level → file name → its pagemap there.
    """

    windows: tuple[tuple[Slice, ...], ...]
    pagemaps: tuple[Mapping[str, Pagemap], ...]


def window_bytes(total_bytes: int) -> int:
    """How large the windows of a memory of ``total_bytes`` are."""
    share = -(-total_bytes // MAX_WINDOWS)
    return max(MIN_WINDOW_BYTES, -(-share // _ROUND) * _ROUND)


def folder(level: int) -> str:
    """The folder of ``level`` within the archive: 0 is the top one."""
    return "/".join(["checkpoint", *["parent"] * level])


def split(maps: Mapping[str, Pagemap], window: int) -> Chain:
    """Cut the flat memory of processes into windows of ``window`` bytes.

    Small processes come first, so that only the few large ones reach into deep folders.

    Args:
        maps: file name → flat pagemap of a process.
        window: a multiple of the page size.

    Raises:
        ValueError: a page is in a parent already, or two processes share a pages file.
    """
    if len({pagemap.pages_id for pagemap in maps.values()}) != len(maps):
        raise ValueError("two pagemaps name the same pages file")
    windows: list[list[Slice]] = []
    levels: list[dict[str, Pagemap]] = [{}]
    for name, start in starts(maps).items():
        _Cutter(name, maps[name], window, start).cut(levels, windows)
    return Chain(tuple(map(tuple, windows)), tuple(levels))


def starts(maps: Mapping[str, Pagemap]) -> dict[str, int]:
    """In the order in which processes are cut: how many bytes of memory come before each."""
    found: dict[str, int] = {}
    done = 0
    for name in sorted(maps, key=lambda key: (maps[key].stored_bytes, key)):
        found[name] = done
        done += maps[name].stored_bytes
    return found


class _Cutter:
    """Cuts one process, ``start`` bytes after the first window's beginning."""

    def __init__(self, name: str, flat: Pagemap, window: int, start: int) -> None:
        self._name, self._flat, self._window, self._start = name, flat, window, start

    def cut(self, levels: list[dict[str, Pagemap]], windows: list[list[Slice]]) -> None:
        """Add this process to ``levels`` and ``windows``."""
        top = Pagemap(self._flat.magic, self._flat.pages_id)
        levels[0][self._name] = top
        held: dict[int, Pagemap] = {}
        end = 0
        for run, number in self._pieces():
            if number is None:
                top.append(run)
                continue
            top.append(PageRun(run.vaddr, run.pages, IN_PARENT | run.flags & LAZY))
            mine = held.setdefault(number, Pagemap(self._flat.magic, self._flat.pages_id))
            mine.append(run)
            end = run.vaddr + run.pages * PAGE_SIZE
        self._fill_levels(held, end, levels)
        self._fill_windows(held, windows)

    def _pieces(self) -> Iterator[tuple[PageRun, int | None]]:
        """The runs, cut where windows end, with the window that takes them (None: no pages)."""
        done = self._start
        for run in self._flat:
            if run.flags & IN_PARENT:
                raise ValueError(f"{self._name} names a parent; only a flat dump can be cut")
            if not run.flags & PRESENT:
                yield run, None
                continue
            vaddr, left = run.vaddr, run.pages
            while left:
                room = (self._window - done % self._window) // PAGE_SIZE
                pages = min(left, room)
                yield PageRun(vaddr, pages, run.flags), done // self._window
                vaddr, left, done = (
                    vaddr + pages * PAGE_SIZE,
                    left - pages,
                    done + pages * PAGE_SIZE,
                )

    def _fill_levels(
        self, held: Mapping[int, Pagemap], end: int, levels: list[dict[str, Pagemap]]
    ) -> None:
        """Write the pagemap of every level down to the last window of this process."""
        if not held:
            return
        deepest = max(held)
        while len(levels) < deepest + 2:
            levels.append({})
        firsts = {number: next(iter(pagemap)).vaddr for number, pagemap in held.items()}
        for number in range(deepest + 1):
            mine = held.get(number) or Pagemap(self._flat.magic, self._flat.pages_id)
            deeper = [vaddr for other, vaddr in firsts.items() if other > number]
            if deeper:
                for run in _spans(min(deeper), end):
                    mine.append(run)
            levels[number + 1][self._name] = mine

    def _fill_windows(self, held: Mapping[int, Pagemap], windows: list[list[Slice]]) -> None:
        offset = 0
        for number in sorted(held):
            while len(windows) <= number:
                windows.append([])
            length = held[number].stored_bytes
            windows[number].append(Slice(self._flat.pages_id, offset, length))
            offset += length


def _spans(start: int, end: int) -> Iterator[PageRun]:
    """Runs "in the parent" over all of ``start`` … ``end``, holes included."""
    while start < end:
        pages = min((end - start) // PAGE_SIZE, _MAX_SPAN_PAGES)
        yield PageRun(start, pages, IN_PARENT)
        start += pages * PAGE_SIZE


class Extents:
    """Where the parts of one level's pages file go in the flat one; ascending, disjoint."""

    __slots__ = ("lengths", "sources", "targets")

    def __init__(self) -> None:
        self.sources, self.targets, self.lengths = array("Q"), array("Q"), array("Q")

    def add(self, source: int, target: int, length: int) -> None:
        """Add the next one, joined to the last where it goes on at both ends."""
        if self.sources:
            last = self.lengths[-1]
            if self.sources[-1] + last == source and self.targets[-1] + last == target:
                self.lengths[-1] += length
                return
        self.sources.append(source)
        self.targets.append(target)
        self.lengths.append(length)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """``(source, target, length)`` in bytes."""
        return zip(self.sources, self.targets, self.lengths, strict=True)


@dataclass(frozen=True, slots=True)
class PagesFile:
    """One level's pages file: how large it must be and where its parts go.

    Attributes:
        target_id: the N of the flat file.
        size: in bytes, of this level's file.
    """

    target_id: int
    size: int
    extents: Extents = field(default_factory=Extents)


@dataclass(frozen=True, slots=True)
class Flat:
    """How a chain becomes flat.

    Attributes:
        pagemaps: file name → the flat pagemap.
        sizes: N → size of the flat ``pages-<N>.img`` in bytes.
        sources: (level, N) → what to do with that level's ``pages-<N>.img``.
    """

    pagemaps: Mapping[str, Pagemap]
    sizes: Mapping[int, int]
    sources: Mapping[tuple[int, int], PagesFile]


def flatten(levels: Sequence[Mapping[str, Pagemap]]) -> Flat:
    """Find the place of every page of the top folder.

    Runs stay cut where the windows cut them: cutting the result again gives the same chain. Where a
    delta cut them between its own pages and the base's they are joined again.

    Args:
        levels: file name → pagemap, for the top folder and each parent below it.

    Raises:
        ValueError: a page is nowhere, or the levels do not fit together.
    """
    if not 1 <= len(levels) <= MAX_LEVELS:
        raise ValueError(f"{len(levels)} levels of memory")
    pagemaps: dict[str, Pagemap] = {}
    sizes: dict[int, int] = {}
    sources: dict[tuple[int, int], PagesFile] = {}
    for name, top in levels[0].items():
        chain = [top]
        for level in levels[1:]:  # like CRIU: the chain of a process ends with its first absence
            if name not in level:
                break
            chain.append(level[name])
        if top.pages_id in sizes:
            raise ValueError(f"two pagemaps name pages-{top.pages_id}.img")
        for depth, pagemap in enumerate(chain):
            place = depth, pagemap.pages_id
            if place in sources:
                raise ValueError(f"two pagemaps of a folder name pages-{pagemap.pages_id}.img")
            sources[place] = PagesFile(top.pages_id, pagemap.stored_bytes)
        pagemaps[name] = _flatten_process(name, chain, sources)
        sizes[top.pages_id] = pagemaps[name].stored_bytes
    return Flat(pagemaps, sizes, sources)


@dataclass(frozen=True, slots=True)
class _End:
    """Where the last run of a flat pagemap ends, its flags, and the level its pages came from."""

    vaddr: int
    flags: int
    depth: int

    def goes_on(self, vaddr: int, flags: int, depth: int) -> bool:
        """Whether only a delta cut there: between pages on top and pages of the base."""
        is_delta_cut = (self.depth == 0) != (depth == 0)
        return is_delta_cut and (vaddr, flags) == (self.vaddr, self.flags)


def _flatten_process(
    name: str, chain: Sequence[Pagemap], sources: Mapping[tuple[int, int], PagesFile]
) -> Pagemap:
    """The flat pagemap of one process; its extents go into ``sources``."""
    flat = Pagemap(chain[0].magic, chain[0].pages_id)
    target = 0
    last = _End(0, 0, 0)
    for run in chain[0]:
        if not run.flags & (PRESENT | IN_PARENT):
            flat.append(run)
            continue
        vaddr, left = run.vaddr, run.pages
        while left:
            depth, offset, pages = locate(name, chain, vaddr)
            pages = min(pages, left)
            place = depth, chain[depth].pages_id
            sources[place].extents.add(offset, target, pages * PAGE_SIZE)
            flags = run.flags & ~IN_PARENT | PRESENT
            if last.goes_on(vaddr, flags, depth):
                flat.lengthen(pages)
            else:
                flat.append(PageRun(vaddr, pages, flags))
            last = _End(vaddr + pages * PAGE_SIZE, flags, depth)
            vaddr, left, target = (
                vaddr + pages * PAGE_SIZE,
                left - pages,
                target + pages * PAGE_SIZE,
            )
    return flat


def locate(name: str, chain: Sequence[Pagemap], vaddr: int) -> tuple[int, int, int]:
    """Where the page at ``vaddr`` is: level, offset in its pages file, pages from there on.

    Args:
        name: of the pagemap, for the error.
        chain: the process's pagemap in the top folder and in each parent.

    Raises:
        ValueError: it is in none of them.
    """
    limit: int | None = None
    for depth, pagemap in enumerate(chain):
        found = pagemap.find(vaddr)
        if found is None:
            break
        run, offset = found
        skipped = vaddr - run.vaddr
        pages = run.pages - skipped // PAGE_SIZE
        limit = pages if limit is None else min(limit, pages)
        if run.flags & PRESENT:
            return depth, offset + skipped, limit
        if not run.flags & IN_PARENT:
            break
    raise ValueError(f"{name}: the page at {vaddr:#x} is in no folder of the chain")
