"""Two checkpoints of one process on a node: what they share is fetched once and lies on the disk once."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.formats.jobs import FetchSpec, Progress
from agent.image.cache import Cache, CacheLimits
from agent.image.prefetching import JobFetcher
from tests.integration.own_registry import OwnRegistry
from tests.integration.shelf import MIB, SIZE, Shelf, silent

# fetches an image and kills itself in the middle; argv: cache, image, registry's access as JSON
DYING: str = """
import asyncio, os, signal, sys
from pathlib import Path
import msgspec
from agent.formats.jobs import RegistryAccess
from agent.image.cache import Cache, CacheLimits

async def main(root, image, access):
    cache = Cache(Path(root), CacheLimits(free_floor_bytes=0))
    await cache.open()

    def die(progress):
        if progress.percent > 50:
            os.kill(os.getpid(), signal.SIGKILL)

    await cache.fetch(image, msgspec.json.decode(access, type=RegistryAccess), die)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    """With two checkpoints, the second a delta of the first, both pushed."""
    own = OwnRegistry(tmp_path / "registry")
    own.start()
    shelf = Shelf(tmp_path / "shelf", own)
    try:
        shelf.make("base", 1)
        asyncio.run(shelf.push("base"))
        shelf.make("later", 2, 0.05)
        asyncio.run(shelf.push("later"))
        yield shelf
    finally:
        own.kill()


def files_in(root: Path) -> int:
    """Bytes of the files below ``root``, each once whatever names it has."""
    found = [path.lstat() for path in root.rglob("*") if path.is_file()]
    return sum({state.st_ino: state.st_size for state in found}.values())


async def lose_shared_memory(shelf: Shelf) -> int:
    """Remove from the registry the memory layers that both images have; how many these were."""
    shared = await shelf.windows("base") & await shelf.windows("later")
    for one in shared:
        for path in shelf.registry.blob_files(one.removeprefix("sha256:")):
            path.unlink()
    return len(shared)


async def test_second_one_brings_only_what_differs(shelf: Shelf) -> None:
    said: list[Progress] = []
    async with shelf.cache() as cache:
        await cache.fetch(shelf.image("base"), shelf.registry.access, silent)
        before = files_in(shelf.cache_root), cache.size_bytes
        assert await lose_shared_memory(shelf) >= 3
        await cache.fetch(shelf.image("later"), shelf.registry.access, said.append)
        grown = files_in(shelf.cache_root) - before[0]
        assert grown < 0.1 * SIZE
        assert 0 <= cache.size_bytes - before[1] - grown < MIB
        assert "of them here already" in said[-1].message
        for name in ("base", "later"):
            await shelf.is_right(name, cache)


async def test_first_one_may_go_and_what_it_shared_stays(shelf: Shelf) -> None:
    async with shelf.cache() as cache:
        for name in ("base", "later"):
            await cache.fetch(shelf.image(name), shelf.registry.access, silent)
        both = files_in(shelf.cache_root)
        assert await cache.remove(shelf.digest("base"))
        assert both - files_in(shelf.cache_root) < 0.1 * SIZE
        await shelf.is_right("later", cache)
        assert await cache.remove(shelf.digest("later"))
        assert files_in(shelf.cache_root) == 0
        assert cache.size_bytes == 0


async def test_both_at_once_bring_each_window_once(shelf: Shelf) -> None:
    async with shelf.cache() as cache:
        images = [shelf.image(name) for name in ("base", "later")]
        access = shelf.registry.access
        await asyncio.gather(*(cache.fetch(image, access, silent) for image in images))
        assert files_in(shelf.cache_root) < 1.3 * SIZE
        for name in ("base", "later"):
            await shelf.is_right(name, cache)


async def test_one_that_is_given_up_does_not_take_away_what_another_needs(shelf: Shelf) -> None:
    begun = asyncio.Event()
    async with shelf.cache() as cache:
        access = shelf.registry.access
        first = asyncio.create_task(
            cache.fetch(shelf.image("base"), access, lambda _: begun.set(), goes_on=False)
        )
        await asyncio.wait_for(begun.wait(), 20)
        second = asyncio.create_task(cache.fetch(shelf.image("later"), access, silent))
        first.cancel()
        await second
        await asyncio.wait([first])
        assert cache.find(shelf.digest("base")) is None
        await shelf.is_right("later", cache)


async def test_kill_in_the_middle_of_a_fetch_leaves_nothing_half(shelf: Shelf) -> None:
    access = msgspec.json.encode(shelf.registry.access).decode()
    argv = [sys.executable, "-c", DYING, str(shelf.cache_root), shelf.image("base"), access]
    died = await asyncio.to_thread(subprocess.run, argv, timeout=120, check=False)
    assert died.returncode == -signal.SIGKILL
    assert files_in(shelf.cache_root) > 0
    async with shelf.cache() as cache:
        assert cache.find(shelf.digest("base")) is None
        assert files_in(shelf.cache_root) == cache.size_bytes == 0
        await cache.fetch(shelf.image("base"), shelf.registry.access, silent)
        await shelf.is_right("base", cache)


async def test_small_cache_counts_what_is_shared_once(shelf: Shelf) -> None:
    limits = CacheLimits(
        size_bytes=SIZE + 90 * MIB, free_floor_bytes=0
    )  # 64 MiB are kept for slack
    cache = Cache(shelf.cache_root, limits)
    await cache.open()
    try:
        for name in ("base", "later"):
            await cache.fetch(shelf.image(name), shelf.registry.access, silent)
        assert cache.find(shelf.digest("base")) is not None
        assert cache.find(shelf.digest("later")) is not None
    finally:
        await cache.close()


@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "eager"])
async def test_prefetch_makes_flat_memory_where_it_will_be_read(
    shelf: Shelf, *, lazy: bool
) -> None:
    async with shelf.cache() as cache:
        fetcher = JobFetcher(cache, lambda _: shelf.registry.access, lambda _: lazy)
        folder = await fetcher.fetch(FetchSpec(shelf.image("base")), silent)
        assert (folder.suffix == ".flat") is lazy
        assert (folder / "checkpoint" / "parent").exists() is not lazy
