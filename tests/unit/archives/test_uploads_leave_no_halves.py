"""The folder of uploaded archives holds whole ones only, whatever broke off."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from controlplane.archives.shelf import ArchiveShelf, Limits
from controlplane.errors import NotFound, Refused
from tests.fakes.archives import archive

LIMITS = Limits(size_bytes=1 << 20, free_bytes=0)
TAR = archive()


@pytest.fixture
def shelf(tmp_path: Path) -> ArchiveShelf:
    made = ArchiveShelf(tmp_path / "uploads", LIMITS)
    made.open(())
    return made


def _files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def _stored(shelf: ArchiveShelf, archive_id: str) -> None:
    async with shelf.receiving(archive_id, len(TAR)) as receiving:
        await receiving.write(TAR)
        await receiving.finish()
        receiving.keep()


async def test_what_is_not_kept_is_gone(shelf: ArchiveShelf, tmp_path: Path) -> None:
    async with shelf.receiving("A1", 0) as receiving:
        await receiving.write(TAR)
        await receiving.finish()  # and then its row could not be stored
    assert _files(tmp_path / "uploads") == []


async def test_what_no_checkpoint_has_goes_at_the_start(
    shelf: ArchiveShelf, tmp_path: Path
) -> None:
    for name in ("A1", "A2"):
        await _stored(shelf, name)
    (tmp_path / "uploads" / "A3.part").write_bytes(b"half")
    ArchiveShelf(tmp_path / "uploads", LIMITS).open(["A1"])
    assert [path.name for path in (tmp_path / "uploads").iterdir()] == ["A1.tar"]


async def test_an_archive_that_is_deleted_is_read_to_its_end(shelf: ArchiveShelf) -> None:
    await _stored(shelf, "A1")
    pieces = shelf.read("A1", 0, 0)
    first = await anext(pieces)
    await shelf.delete("A1")
    await shelf.delete("A1")
    assert first + b"".join([piece async for piece in pieces]) == TAR
    with pytest.raises(NotFound):
        await anext(shelf.read("A1", 0, 0))


async def test_uploads_side_by_side_count_on_their_own_room(tmp_path: Path) -> None:
    free = ArchiveShelf(tmp_path, LIMITS)
    free.open(())
    spare = free._spare("")
    # sizes that are only announced, far above what others write to this disk meanwhile
    narrow = ArchiveShelf(tmp_path, Limits(size_bytes=1 << 62, free_bytes=spare - (4 << 30)))
    async with narrow.receiving("A1", 3 << 30):
        with pytest.raises(Refused, match="no room"):
            async with narrow.receiving("A2", 3 << 30):
                pass
    assert _files(tmp_path) == []


async def test_a_cancelled_upload_is_closed(shelf: ArchiveShelf, tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def run() -> None:
        async with shelf.receiving("A1", 0) as receiving:
            await receiving.write(TAR)
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert _files(tmp_path / "uploads") == []
