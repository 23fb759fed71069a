"""The chain of windows: cut and made flat again it is the same memory; deltas and damage."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from agent.formats import criu_images, memory_chain, pagemap
from agent.formats.criu_wire import IN_PARENT, LAZY, PRESENT, PageRun
from agent.formats.memory_chain import Flat
from agent.formats.pagemap import PAGE_SIZE, Pagemap

MAGIC = criu_images.magic(criu_images.PAGEMAP_MAGIC)
NAME = "pagemap-1.img"


def process(number: int, pages: int, seed: int) -> Pagemap:
    rnd = random.Random(seed)  # noqa: S311
    made = Pagemap(MAGIC, number)
    vaddr = 0x400000
    while pages:
        count = min(pages, rnd.choice([1, 3, 40]))
        made.append(PageRun(vaddr, count, rnd.choice([PRESENT, PRESENT | LAZY])))
        vaddr += (count + rnd.choice([0, 1, 9])) * PAGE_SIZE
        if rnd.random() < 0.1:
            made.append(PageRun(vaddr, 2, LAZY))  # mapped, without content
            vaddr += 2 * PAGE_SIZE
        pages -= count
    return made


def content(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311


def rebuilt(flat: Flat, files: Mapping[tuple[int, int], bytes]) -> dict[int, bytes]:
    """The flat pages files that ``flat`` makes of each level's files."""
    made = {number: bytearray(size) for number, size in flat.sizes.items()}
    for place, file in flat.sources.items():
        assert len(files.get(place, b"")) == file.size
        for source, target, length in file.extents:
            made[file.target_id][target : target + length] = files[place][source : source + length]
    return {number: bytes(pages) for number, pages in made.items()}


@pytest.mark.parametrize("seed", range(8))
def test_cut_and_flattened_memory_is_the_same(seed: int) -> None:
    counts = random.Random(seed).choices([0, 1, 5, 130, 700], k=4)  # noqa: S311
    maps = {f"pagemap-{n}.img": process(n, count, seed + n) for n, count in enumerate(counts, 1)}
    pages = {one.pages_id: content(one.stored_bytes, one.pages_id) for one in maps.values()}
    chain = memory_chain.split(maps, 64 * PAGE_SIZE)
    files = {
        (level + 1, part.pages_id): pages[part.pages_id][part.offset : part.offset + part.length]
        for level, window in enumerate(chain.windows)
        for part in window
    }
    assert all(sum(part.length for part in window) for window in chain.windows)
    flat = memory_chain.flatten(chain.pagemaps)
    assert rebuilt(flat, files) == pages
    again = memory_chain.split(flat.pagemaps, 64 * PAGE_SIZE)
    assert [{name: one.image() for name, one in level.items()} for level in again.pagemaps] == [
        {name: one.image() for name, one in level.items()} for level in chain.pagemaps
    ]


def test_top_folder_of_a_full_image_holds_no_pages_of_processes() -> None:
    chain = memory_chain.split({NAME: process(1, 300, 1)}, 64 * PAGE_SIZE)
    assert chain.pagemaps[0][NAME].stored_bytes == 0
    assert all(run.flags & (IN_PARENT | LAZY) for run in chain.pagemaps[0][NAME])


def test_deep_pagemaps_do_not_grow_with_the_number_of_windows() -> None:
    flat = process(1, 3000, 1)
    chain = memory_chain.split({NAME: flat}, 100 * PAGE_SIZE)
    assert len(chain.windows) == 30
    assert sum(len(level[NAME]) for level in chain.pagemaps[1:]) < len(flat) + 3 * 30


def test_delta_takes_each_page_from_where_it_is() -> None:
    base = process(1, 300, 1)
    pages = content(base.stored_bytes, 1)
    chain = memory_chain.split({NAME: base}, 64 * PAGE_SIZE)
    top = Pagemap(MAGIC, 1)
    changed = bytearray()
    expected = bytearray()
    offset = 0
    for index, run in enumerate(run for run in base if run.flags & PRESENT):
        size = run.pages * PAGE_SIZE
        if index % 3 == 0:
            top.append(run)
            changed += content(size, index)
            expected += content(size, index)
        elif index % 3 == 1:  # the others are no longer mapped
            top.append(PageRun(run.vaddr, run.pages, IN_PARENT))
            expected += pages[offset : offset + size]
        offset += size
    files = {(0, 1): bytes(changed)}
    for level, window in enumerate(chain.windows):
        for part in window:
            files[level + 1, 1] = pages[part.offset : part.offset + part.length]
    flat = memory_chain.flatten([{NAME: top}, *chain.pagemaps[1:]])
    assert rebuilt(flat, files) == {1: bytes(expected)}


def test_windows_grow_with_the_memory() -> None:
    assert memory_chain.window_bytes(0) == memory_chain.MIN_WINDOW_BYTES
    for total in (1 << 30, 100 << 30, 3 << 40):
        window = memory_chain.window_bytes(total)
        assert window % PAGE_SIZE == 0
        assert -(-total // window) <= memory_chain.MAX_WINDOWS


@pytest.mark.parametrize(
    "levels",
    [
        [[PageRun(0x1000, 1, IN_PARENT)]],
        [[PageRun(0x1000, 2, IN_PARENT)], [PageRun(0x1000, 1, PRESENT)]],
        [[PageRun(0x1000, 1, IN_PARENT)], [PageRun(0x1000, 1, LAZY)]],
    ],
    ids=["no-parent", "parent-lacks-a-page", "parent-has-no-content"],
)
def test_page_that_is_nowhere_is_refused(levels: list[list[PageRun]]) -> None:
    with pytest.raises(ValueError, match="in no folder"):
        memory_chain.flatten([{NAME: Pagemap(MAGIC, 1, runs)} for runs in levels])


@pytest.mark.parametrize(
    "runs",
    [
        [PageRun(0x2000, 1, PRESENT), PageRun(0x1000, 1, PRESENT)],
        [PageRun(0x1000, 2, PRESENT), PageRun(0x2000, 1, PRESENT)],
        [PageRun(0x1000, 0, PRESENT)],
        [PageRun(0x1001, 1, PRESENT)],
        [PageRun(0xFFFF_FFFF_FFFF_F000, 9, PRESENT)],
    ],
    ids=["descending", "overlapping", "empty", "unaligned", "beyond-the-end"],
)
def test_pagemap_that_could_make_pages_many_is_refused(runs: list[PageRun]) -> None:
    with pytest.raises(ValueError, match="pagemap's run"):
        Pagemap(MAGIC, 1, runs)


def test_pagemap_image_survives_reading_and_writing() -> None:
    image = process(7, 100, 3).image()
    assert pagemap.parse(image).image() == image


@pytest.mark.parametrize("cut", [0, 3, 8, 11, 40])
def test_cut_off_image_is_refused_or_shorter(cut: int) -> None:
    image = process(7, 100, 3).image()
    with pytest.raises(ValueError, match=r"ends within|empty|too short"):
        pagemap.parse(image[:cut])
