"""Which layers a checkpoint's parts become, and in which order.

1. metadata: everything small, with the pagemaps of every level of the memory's chain;
2. files: the rootfs diff, volumes, /dev/shm (left out when there is none);
3. one layer per memory window, then shared memory's pages, packed to about a window's size; of a
   delta first a layer of the pages that differ, then the base's windows.

Equal parts give equal plans, byte for byte, whatever machine makes them.
"""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from agent.errors import Broken
from agent.formats import layout, memory_chain, pagemap, tar_format
from agent.formats.memory_chain import Chain, Slice
from agent.formats.memory_delta import Cut, Delta
from agent.image import content
from agent.image.content import FileRuns, FileSlice, LayerPlan, Piece

_Member = tuple[tar_format.Entry, Piece]
_CHECKPOINT: Final = layout.CHECKPOINT_DIR + "/"
# what lies beside the parts in their folder and is no member
BESIDE_PARTS: Final = frozenset({layout.RECORD, layout.RECORD + ".tmp"})
_FOLDER_MODE: Final = 0o700


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of a checkpoint's processes.

    Attributes:
        maps: file name → flat pagemap of a process.
        window: how large the windows of a full image are, in bytes.
    """

    maps: Mapping[str, pagemap.Pagemap]
    window: int

    @classmethod
    def read(cls, parts: Path) -> Memory:
        """Blocking: reads pagemaps, not pages.

        Raises:
            Broken: the parts are no whole checkpoint.
        """
        return cls._read(parts, dict(_walk(parts)))

    @classmethod
    def _read(cls, parts: Path, sizes: Mapping[str, int]) -> Memory:
        with _readable(parts):
            maps = _process_pagemaps(parts, sizes)
            return cls(maps, memory_chain.window_bytes(_memory_bytes(sizes)))


@dataclass(frozen=True, slots=True)
class Onto:
    """What a delta lies on: ``windows`` are the base's, of which those that stayed are taken."""

    delta: Delta
    windows: Sequence[LayerPlan]


def plan(parts: Path, onto: Onto | None = None) -> tuple[LayerPlan, ...]:
    """The layers of the checkpoint in ``parts``. Blocking: reads pagemaps, not pages.

    Raises:
        Broken: the parts are no whole checkpoint.
    """
    sizes = dict(_walk(parts))
    memory = Memory._read(parts, sizes)  # noqa: SLF001 - the class is this module's
    cut = {f"{_CHECKPOINT}pages-{one.pages_id}.img" for one in memory.maps.values()}
    shared = [name for name in sizes if _is_pages(name) and name not in cut]
    files = [name for name in sizes if _is_files(name)]
    elsewhere = {*cut, *shared, *files, *(f"{_CHECKPOINT}{name}" for name in memory.maps)}
    small = {
        name: _file(parts, name, size) for name, size in sizes.items() if name not in elsewhere
    }
    if onto is None:
        with _readable(parts):
            chain = memory_chain.split(memory.maps, memory.window)
        pagemaps, held = chain.pagemaps, _held(((), *chain.windows))
        pages = windows(parts, chain)
    else:
        pagemaps, held = onto.delta.pagemaps, _held_by(onto)
        pages = _delta(parts, onto)
    plans = [content.plan(content.METADATA, _metadata(small, pagemaps, held))]
    if files:
        members = [_file(parts, name, sizes[name]) for name in files]
        plans.append(content.plan(content.FILES, members))
    plans += pages
    plans += [
        content.plan(
            content.MEMORY, [_file(parts, name, sizes[name]) for name in group], maybe_dense=True
        )
        for group in _packed(shared, sizes, memory.window)
    ]
    return tuple(plans)


@contextmanager
def _readable(parts: Path) -> Iterator[None]:
    """Turn the formats' ValueError within the block into Broken."""
    try:
        yield
    except ValueError as cause:
        raise Broken(
            f"The memory in {parts} can't be read; checkpoint again.", details=str(cause)
        ) from cause


def _walk(parts: Path) -> Iterator[tuple[str, int]]:
    """Every member's name and size, sorted by name."""
    for path in sorted(parts.rglob("*"), key=lambda one: one.relative_to(parts).as_posix()):
        name = path.relative_to(parts).as_posix()
        state = path.lstat()
        if name in BESIDE_PARTS or stat.S_ISDIR(state.st_mode):
            continue
        if not stat.S_ISREG(state.st_mode):
            raise Broken(f"{path} is no ordinary file; a checkpoint has only those.")
        yield name, state.st_size


def _process_pagemaps(parts: Path, sizes: Mapping[str, int]) -> dict[str, pagemap.Pagemap]:
    """The pagemaps of processes, each checked against the size of its pages."""
    maps: dict[str, pagemap.Pagemap] = {}
    for name in sizes:
        folder, _, base = name.rpartition("/")
        if folder != layout.CHECKPOINT_DIR or not pagemap.PROCESS_PAGEMAP.fullmatch(base):
            continue
        one = pagemap.parse((parts / name).read_bytes())
        pages = f"{_CHECKPOINT}pages-{one.pages_id}.img"
        if sizes.get(pages, 0) != one.stored_bytes:
            raise ValueError(
                f"{pages} has {sizes.get(pages, 0)} bytes, {base} asks for {one.stored_bytes}"
            )
        maps[base] = one
    return maps


def _is_pages(name: str) -> bool:
    folder, _, base = name.rpartition("/")
    return folder == layout.CHECKPOINT_DIR and bool(pagemap.PAGES_FILE.fullmatch(base))


def _is_files(name: str) -> bool:
    volume = PurePosixPath(name).parent.as_posix() == layout.VOLUMES_DIR
    return volume or name in (layout.ROOTFS_DIFF, layout.SHM_TAR)


def _memory_bytes(sizes: Mapping[str, int]) -> int:
    return sum(size for name, size in sizes.items() if _is_pages(name))


def _file(parts: Path, name: str, size: int) -> _Member:
    return tar_format.Entry(name, size), FileSlice(parts / name, 0, size)


def _held(levels: Iterable[Iterable[Slice | Cut]]) -> list[set[int]]:
    """The numbers of the pages files that lie in each level's layer."""
    return [{one.pages_id for one in level} for level in levels]


def _held_by(onto: Onto) -> list[set[int]]:
    """The same of a delta. A base's layer holds a file for each process that has pages there."""
    held = _held((onto.delta.top, *(window or () for window in onto.delta.windows)))
    for number, window in enumerate(onto.delta.windows):
        if window is None:
            maps = onto.delta.pagemaps[number + 1].values()
            held[number + 1] = {one.pages_id for one in maps if one.stored_bytes}
    return held


def _metadata(
    small: Mapping[str, _Member],
    pagemaps: Sequence[Mapping[str, pagemap.Pagemap]],
    held: Sequence[set[int]],
) -> list[_Member]:
    """The first layer's members: folders, small files, every level's pagemaps, sorted by name.

    A level that has a pagemap but no pages of a process gets an empty pages file: readers open it.
    """
    members = dict(small)
    for level, maps in enumerate(pagemaps):
        folder = memory_chain.folder(level)
        for base, one in maps.items():
            image = one.image()
            name = f"{folder}/{base}"
            members[name] = tar_format.Entry(name, len(image)), image
            if one.pages_id not in held[level]:
                name = f"{folder}/pages-{one.pages_id}.img"
                members[name] = tar_format.Entry(name), b""
    for name in list(members):
        for parent in PurePosixPath(name).parents[:-1]:
            entry = tar_format.Entry(parent.as_posix(), kind=tarfile.DIRTYPE, mode=_FOLDER_MODE)
            members[parent.as_posix()] = entry, b""
    return [members[name] for name in sorted(members)]


def windows(parts: Path, chain: Chain) -> list[LayerPlan]:
    """One layer for each window of the memory in ``parts``."""
    plans = []
    for number, slices in enumerate(chain.windows):
        folder = memory_chain.folder(number + 1)
        members = [
            (
                tar_format.Entry(f"{folder}/pages-{one.pages_id}.img", one.length),
                FileSlice(parts / f"{_CHECKPOINT}pages-{one.pages_id}.img", one.offset, one.length),
            )
            for one in slices
        ]
        plans.append(content.plan(content.MEMORY, members, maybe_dense=True))
    return plans


def _delta(parts: Path, onto: Onto) -> list[LayerPlan]:
    """The pages on top, then the windows: the base's, or what is in their place."""
    plans = _changed(parts, 0, onto.delta.top)
    for number, window in enumerate(onto.delta.windows):
        if window is None:
            plans.append(onto.windows[number])
        else:
            plans += _changed(parts, number + 1, window)
    return plans


def _changed(parts: Path, level: int, cuts: Sequence[Cut]) -> list[LayerPlan]:
    """The layer of a level's pages, if there are any."""
    members: list[_Member] = []
    for one in cuts:
        base = f"pages-{one.pages_id}.img"
        entry = tar_format.Entry(f"{memory_chain.folder(level)}/{base}", one.length)
        path = parts / f"{_CHECKPOINT}{base}"
        members.append((entry, FileRuns(path, one.offsets, one.lengths, one.length)))
    return [content.plan(content.MEMORY, members, maybe_dense=True)] if members else []


def _packed(names: Iterable[str], sizes: Mapping[str, int], window: int) -> Iterator[list[str]]:
    """``names`` in groups that reach the size of a window, but for the last one."""
    group: list[str] = []
    held = 0
    for name in names:
        group.append(name)
        held += sizes[name]
        if held >= window:
            yield group
            group, held = [], 0
    if group:
        yield group
