"""The threads of a dump: whatever ``core-*.img`` says of who they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from agent.formats import criu_images, criu_wire, memory_chain
from agent.formats.criu_wire import Core, PageRun

_FILTER: Final = 2
_SOONER_FLAT_BYTES: Final = 128 << 20  # a chain of less has four folders at most


def threads(images: Path) -> Iterator[tuple[str, Core]]:
    """Name and content of every ``core-*.img`` in ``images``, one for each thread, sorted by name.

    Where all threads of a process have the same seccomp filters, CRIU writes down those of the first one, to be set
    for all (TSYNC); the others are given here what they will have.

    Raises:
        ValueError: one can't be read, or there is none: then nothing is known of the dump's privileges.

    Source: CRIU, criu/seccomp.c (try_use_tsync; only the filter that was set last gets the flag, and brings all).
    """
    files = sorted(images.glob("core-*.img"))
    if not files:
        raise ValueError("the checkpoint has no core images")
    cores = {file.name: _core(file) for file in files}
    filtered = _filtered_by_their_first(images, cores)
    for name, core in cores.items():
        yield name, replace(core, seccomp_mode=_FILTER) if name in filtered else core


def highest_number(images: Path) -> int:
    """The highest number that a process or thread of ``images`` has; 0 where there is none."""
    numbers = (file.stem.removeprefix("core-") for file in images.glob("core-*.img"))
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def _core(file: Path) -> Core:
    try:
        return criu_wire.core_of(criu_images.first(file.read_bytes()))
    except ValueError as cause:
        raise ValueError(f"{file.name}: {cause}") from cause


def _filtered_by_their_first(images: Path, cores: Mapping[str, Core]) -> frozenset[str]:
    """The threads that have no seccomp filter of their own in the images, and get those of their process."""
    processes, filters = images / "pstree.img", images / "seccomp.img"
    if not processes.exists() or not filters.exists():
        return frozenset()
    shared = criu_wire.synchronized_filters(criu_images.first(filters.read_bytes()))
    found: set[str] = set()
    for node in map(criu_wire.process_node_of, criu_images.entries(processes.read_bytes())):
        first = cores.get(_name(node.pid))
        if first and first.seccomp_mode == _FILTER and first.seccomp_filter in shared:
            found |= {_name(thread) for thread in node.threads}
    return frozenset(name for name in found if name in cores and not cores[name].seccomp_mode)


def _name(thread: int) -> str:
    return f"core-{thread}.img"


@dataclass(frozen=True, slots=True)
class Memory:
    """What a restore brings in: all pages, those that may come later (private and anonymous), and into how many
    address spaces."""

    pages_bytes: int
    lazy_bytes: int
    address_spaces: int


def is_sooner_flat(pages_bytes: int, address_spaces: int) -> bool:
    """Whether a restore of such memory takes far longer over a chain of folders than from one folder.

    CRIU reads the memory of a process that was forked page by page, each through the whole chain.
    """
    return address_spaces > 1 and pages_bytes >= _SOONER_FLAT_BYTES


def memory(images: Path) -> Memory:
    """The pages of ``images``, in one folder or a chain of folders named ``parent``.

    Raises:
        ValueError: a pagemap is damaged, or its pages file is shorter than it says. CRIU (4.2.1) does not fail on
            such a file: it reads its end for ever.
    """
    total = lazy = 0
    for file in sorted(images.glob("pagemap-*.img")):
        for run in _runs(file):
            if run.flags & (criu_wire.PRESENT | criu_wire.IN_PARENT):
                size = run.pages * criu_images.PAGE_SIZE
                total += size
                lazy += size if run.flags & criu_wire.LAZY else 0
    for folder in parents(images):
        for file in sorted(folder.glob("pagemap-*.img")):
            _runs(file)
    return Memory(total, lazy, sum(1 for _ in images.glob("mm-*.img")))


def parents(images: Path) -> Iterator[Path]:
    """The folders named ``parent`` below ``images``, each within the one before, as many as a chain may have."""
    folder = images
    for _ in range(memory_chain.MAX_LEVELS):
        folder /= "parent"
        if not folder.is_dir():
            return
        yield folder


def _runs(file: Path) -> list[PageRun]:
    """What a pagemap says, checked against the size of the pages beside it."""
    try:
        head, *messages = criu_images.entries(file.read_bytes())
        runs = list(map(criu_wire.page_run_of, messages))
        pages = file.with_name(f"pages-{criu_wire.pages_id_of(head)}.img")
    except ValueError as cause:
        raise ValueError(f"{file.name}: {cause}") from cause
    stored = sum(run.pages for run in runs if run.flags & criu_wire.PRESENT)
    wanted, present = stored * criu_images.PAGE_SIZE, 0
    if pages.exists():
        present = pages.stat().st_size
    if present < wanted:
        raise ValueError(f"{pages.name} has {present} bytes, {file.name} needs {wanted}")
    return runs


def pages_bytes(images: Path) -> int:
    """Size of all pages; raises as ``memory``."""
    return memory(images).pages_bytes
