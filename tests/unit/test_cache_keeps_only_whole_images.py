"""What the cache believes when an agent starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import NotFound
from agent.formats.digest import Digest
from agent.image.cache import Cache, CacheLimits

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
    assert names(tmp_path) == [WHOLE, SYNCED_LATER, SYNCED_LATER + ".unsynced"]
    assert cache.find(digest_of(WHOLE)) == tmp_path / WHOLE
    assert cache.find(digest_of(LOST)) is None


async def test_held_image_stays_and_a_missing_one_can_not_be_held(tmp_path: Path) -> None:
    (tmp_path / WHOLE).mkdir()
    cache = await opened(tmp_path)
    with cache.hold(digest_of(WHOLE)):
        assert not await cache.remove(digest_of(WHOLE))
    assert await cache.remove(digest_of(WHOLE))
    assert names(tmp_path) == []
    with pytest.raises(NotFound), cache.hold(digest_of(WHOLE)):
        pass


async def test_image_removed_by_hand_is_no_longer_found(tmp_path: Path) -> None:
    (tmp_path / WHOLE).mkdir()
    cache = await opened(tmp_path)
    (tmp_path / WHOLE).rmdir()
    assert cache.find(digest_of(WHOLE)) is None
