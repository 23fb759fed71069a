"""What the cache believes when an agent starts, and what it keeps of memory that images share."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent.errors import INSUFFICIENT_STORAGE, NotFound, Refused
from agent.formats import core_images, criu_images, memory_chain, pagemap
from agent.formats.digest import Digest
from agent.formats.pagemap import IN_PARENT, PAGE_SIZE, PRESENT, Pagemap, PageRun
from agent.image import folders
from agent.image.cache import Cache, CacheLimits
from agent.image.windows import Windows, file_name

MAGIC = criu_images.magic(criu_images.PAGEMAP_MAGIC)
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text()
WHOLE, HALF, SYNCED_LATER, LOST = ("1" * 64, "2" * 64, "3" * 64, "4" * 64)


def digest_of(name: str) -> Digest:
    return Digest("sha256:" + name)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def opened(root: Path) -> Cache:
    cache = Cache(root, CacheLimits())
    await cache.open()
    return cache


async def test_half_done_and_unsure_images_are_swept(tmp_path: Path) -> None:
    for name in (WHOLE, HALF + ".tmp-abcd", SYNCED_LATER, LOST):
        (tmp_path / name / "checkpoint").mkdir(parents=True)
        (tmp_path / name / "checkpoint" / "pages-1.img").write_bytes(bytes(10))
    (tmp_path / (SYNCED_LATER + ".unsynced")).write_text(BOOT)
    (tmp_path / (LOST + ".unsynced")).write_text("another boot")
    cache = await opened(tmp_path)
    assert names(tmp_path) == [WHOLE, SYNCED_LATER, SYNCED_LATER + ".unsynced", "windows"]
    assert cache.find(digest_of(WHOLE)) == tmp_path / WHOLE
    assert cache.find(digest_of(LOST)) is None


async def test_held_image_stays_and_a_missing_one_can_not_be_held(tmp_path: Path) -> None:
    (tmp_path / WHOLE).mkdir()
    cache = await opened(tmp_path)
    with cache.hold(digest_of(WHOLE)):
        assert not await cache.remove(digest_of(WHOLE))
    assert await cache.remove(digest_of(WHOLE))
    assert names(tmp_path) == ["windows"]
    with pytest.raises(NotFound), cache.hold(digest_of(WHOLE)):
        pass


async def test_image_removed_by_hand_is_no_longer_found(tmp_path: Path) -> None:
    (tmp_path / WHOLE).mkdir()
    cache = await opened(tmp_path)
    (tmp_path / WHOLE).rmdir()
    assert cache.find(digest_of(WHOLE)) is None


def image(root: Path, name: str, windows: tuple[str, ...], own: int) -> Path:
    """An image with ``own`` bytes of its own and a page in each of ``windows``, the first one lowest."""
    runs = [PageRun(0x1000 * (k + 1), 1, IN_PARENT) for k in range(len(windows))]
    folder = root / name / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "pages-1.img").touch()
    for level, window in enumerate(windows, 1):
        (folder / "pagemap-1.img").write_bytes(Pagemap(MAGIC, 1, runs[level - 1 :]).image())
        folder /= "parent"
        folder.mkdir()
        os.link(page(root, window, level), folder / "pages-1.img")
    last = PageRun(0x1000 * len(windows), 1, PRESENT)
    (folder / "pagemap-1.img").write_bytes(Pagemap(MAGIC, 1, [last]).image())
    for level, window in enumerate(windows[:-1], 1):  # those between hold a page and name the rest
        here = root / name / memory_chain.folder(level)
        mine = PageRun(0x1000 * level, 1, PRESENT)
        (here / "pagemap-1.img").write_bytes(Pagemap(MAGIC, 1, [mine, *runs[level:]]).image())
        assert page(root, window, level).samefile(here / "pages-1.img")
    (root / name / "own").write_bytes(bytes(own))
    return root / name


def page(root: Path, window: str, level: int) -> Path:
    """The one page of a window, which is filled with the window's letter."""
    path = root / "windows" / window / file_name((level, 1))
    if not path.exists():
        path.parent.mkdir(parents=True)
        path.write_bytes(window[:1].encode() * PAGE_SIZE)
    return path


def on_disk(*folders: Path) -> int:
    """Bytes of all that is below them, each file once."""
    found = [path.lstat() for folder in folders for path in folder.rglob("*")]
    return sum({state.st_ino: state.st_size for state in found}.values())


A, B, C, E = ("a" * 64, "b" * 64, "c" * 64, "e" * 64)


async def test_shared_windows_go_with_the_last_image_that_has_them(tmp_path: Path) -> None:
    image(tmp_path, WHOLE, (A, B), 100)
    image(tmp_path, SYNCED_LATER, (A, C), 100)
    cache = await opened(tmp_path)
    assert await cache.remove(digest_of(WHOLE))
    assert names(tmp_path / "windows") == [A, C]
    assert await cache.remove(digest_of(SYNCED_LATER))
    assert names(tmp_path / "windows") == []


async def test_windows_that_nobody_has_or_that_are_not_whole_are_swept(tmp_path: Path) -> None:
    image(tmp_path, HALF + ".tmp-abcd", (A, B), 1)  # an agent died while it was linked together
    image(tmp_path, WHOLE, (E,), 1)
    page(tmp_path, C + ".tmp-abcd", 1)  # or while the window was fetched
    page(tmp_path, "d" * 64, 1)
    (tmp_path / "windows" / ("d" * 64 + ".unsynced")).write_text("another boot")
    await opened(tmp_path)
    assert names(tmp_path) == [WHOLE, "windows"]
    assert names(tmp_path / "windows") == [E]


async def test_what_images_share_counts_once_and_flat_memory_counts_too(tmp_path: Path) -> None:
    tops = [image(tmp_path, WHOLE, (A, B), 1), image(tmp_path, SYNCED_LATER, (A, C), 1)]
    cache = await opened(tmp_path)
    assert cache.size_bytes == on_disk(*tops, *(tmp_path / "windows" / one for one in (A, B, C)))
    before = cache.size_bytes
    flat = await cache.flat(digest_of(WHOLE))
    assert 2 * PAGE_SIZE < cache.size_bytes - before < 6 * PAGE_SIZE  # pages, folders, pagemap
    assert (flat / "checkpoint" / "pages-1.img").read_bytes() == b"a" * PAGE_SIZE + b"b" * PAGE_SIZE
    again = await opened(tmp_path)
    assert again.size_bytes == cache.size_bytes
    assert await again.flat(digest_of(WHOLE)) == flat
    assert await again.remove(digest_of(WHOLE))
    assert not flat.exists()


async def test_flat_memory_has_what_the_chain_has_and_nothing_is_stored_twice(
    tmp_path: Path,
) -> None:
    folder = image(tmp_path, WHOLE, (A, B, C), 10)
    cache = await opened(tmp_path)
    one, other = await asyncio.gather(cache.flat(digest_of(WHOLE)), cache.flat(digest_of(WHOLE)))
    assert one == other == tmp_path / (WHOLE + ".flat")
    assert names(one / "checkpoint") == ["pagemap-1.img", "pages-1.img"]
    assert (one / "own").samefile(folder / "own")
    runs = list(pagemap.parse((one / "checkpoint" / "pagemap-1.img").read_bytes()))
    assert [run.flags for run in runs] == [PRESENT] * 3
    assert cache.find(digest_of(WHOLE)) == folder  # the chain is what eager restores read
    images = core_images.memory(folder / "checkpoint"), core_images.memory(one / "checkpoint")
    assert [found.pages_bytes for found in images] == [3 * PAGE_SIZE] * 2


async def test_flat_memory_is_not_made_without_room(tmp_path: Path) -> None:
    image(tmp_path, WHOLE, (A, B, C), 10)
    cache = Cache(tmp_path, CacheLimits(size_bytes=40_000, free_floor_bytes=0))
    await cache.open()
    cache = Cache(tmp_path, CacheLimits(size_bytes=cache.size_bytes + 4096, free_floor_bytes=0))
    await cache.open()
    with pytest.raises(Refused) as failed:
        await cache.flat(digest_of(WHOLE))
    assert failed.value.code == INSUFFICIENT_STORAGE
    assert names(tmp_path) == [WHOLE, "windows"]


async def test_flat_memory_of_a_damaged_chain_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    folder = image(tmp_path, WHOLE, (A, B), 10)
    (folder / "checkpoint" / "parent" / "pages-1.img").write_bytes(b"short")
    cache = await opened(tmp_path)
    with pytest.raises(Refused):
        await cache.flat(digest_of(WHOLE))
    assert names(tmp_path) == [WHOLE, "windows"]
    with pytest.raises(ValueError, match="has 5 bytes"):
        core_images.memory(folder / "checkpoint")


async def test_flat_image_of_before_is_used_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / WHOLE / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "pages-1.img").write_bytes(bytes(PAGE_SIZE))
    cache = await opened(tmp_path)
    assert await cache.flat(digest_of(WHOLE)) == tmp_path / WHOLE


async def test_flat_memory_without_its_image_is_swept(tmp_path: Path) -> None:
    (tmp_path / (WHOLE + ".flat") / "checkpoint").mkdir(parents=True)
    await opened(tmp_path)
    assert names(tmp_path) == ["windows"]


async def test_window_that_two_want_is_brought_once_and_after_a_failure_by_the_other(
    tmp_path: Path,
) -> None:
    windows = Windows(tmp_path)
    await asyncio.to_thread(windows.open, set())
    wanted, brought = digest_of(A), []

    async def want(who: str, *, fails: bool = False) -> None:
        async with windows.alone(wanted):
            if wanted not in windows:
                async with folders.making(windows.folder(wanted)) as partial:
                    (partial / file_name((1, 1))).write_bytes(bytes(PAGE_SIZE))
                    brought.append(who)
                    if fails:
                        raise ValueError(who)
                windows.take(wanted)
            await windows.forget_unused()  # not this one: somebody is busy with it
            os.link(windows.files(wanted)[1, 1], tmp_path / who)

    done = await asyncio.gather(
        want("first", fails=True), want("second"), want("third"), return_exceptions=True
    )
    assert [type(one) for one in done] == [ValueError, type(None), type(None)]
    assert brought == ["first", "second"]
    assert (tmp_path / "second").samefile(tmp_path / "third")
    await windows.forget_unused()
    assert wanted in windows
    for who in ("second", "third"):
        (tmp_path / who).unlink()
    await windows.forget_unused()
    assert wanted not in windows
    assert names(tmp_path) == [A + ".unsynced"] or names(tmp_path) == []


async def test_two_cancellations_leave_nothing_half_and_no_thread_at_work(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def make() -> None:
        async with folders.making(tmp_path / A) as partial:
            (partial / "page").write_bytes(bytes(PAGE_SIZE))
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(make())
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)  # now it removes what it made
    task.cancel()
    await asyncio.wait([task])
    assert names(tmp_path) == []
