"""An uploaded archive becomes parts on a node: whole and harmless, or not at all."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agent.checkpoint.shelf import Shelf
from agent.errors import NotFound, Refused, Retryable
from agent.formats.jobs import CheckpointId, ImportSpec, Progress
from agent.image import importing
from agent.image.importing import Importer
from agent.runtimes.commands import Host
from tests.fakes.archives import FILES, archive, member

ID = CheckpointId("01J00000000000000000000001")


@dataclass
class Line:
    """A link that breaks after so many bytes, ``breaks`` times."""

    content: bytes
    step: int = 700
    breaks: int = 0
    break_after: int = 3000
    offsets: list[int] = field(default_factory=list)

    async def archive(self, transfer_id: str, offset: int) -> AsyncGenerator[bytes, None]:
        assert transfer_id == "job-1"
        self.offsets.append(offset)
        for at in range(offset, len(self.content), self.step):
            if self.breaks and at - offset >= self.break_after:
                self.breaks -= 1
                raise Retryable("The link is away.")
            yield self.content[at : at + self.step]


def _spec(content: bytes) -> ImportSpec:
    return ImportSpec(
        ID,
        "job-1",
        len(content),
        "test-app",
        namespace="shop",
        container_name="app",
        sha256=hashlib.sha256(content).hexdigest(),
        created_at="2026-01-01T00:00:00Z",
    )


def _ignore(_: Progress) -> None:
    pass


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(Host(tmp_path), "/data")


async def test_an_archive_becomes_a_checkpoint(shelf: Shelf) -> None:
    content = archive()
    importer = Importer(shelf, Line(content))
    await importer.take(_spec(content), _ignore)
    found = shelf.get(ID)
    assert (found.namespace, found.pod_name, found.container_name) == ("shop", "test-app", "app")
    parts = shelf.parts(ID)
    assert {name: (parts / name).read_bytes() for name in FILES} == FILES
    line = Line(b"")
    await Importer(shelf, line).take(_spec(content), _ignore)
    assert line.offsets == []  # it was there


async def test_a_link_that_breaks_goes_on_where_it_was(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "_FIRST_PAUSE_S", 0.0)
    content = archive()
    line = Line(content, breaks=3)
    await Importer(shelf, line).take(_spec(content), _ignore)
    assert len(line.offsets) == 4
    assert line.offsets == sorted(set(line.offsets))
    assert shelf.get(ID).complete


@pytest.mark.parametrize(
    "content",
    [
        archive(member("../x", b"y")),
        archive(member("checkpoint/x", type=b"2", linkname="/etc/shadow")),
        archive(without=["spec.dump"]),
        archive()[:5000],
        b"x" * 4096,
    ],
    ids=["upwards", "link", "no checkpoint", "broken off", "no tar"],
)
async def test_of_a_hostile_archive_nothing_is_left(shelf: Shelf, content: bytes) -> None:
    with pytest.raises(Refused):
        await Importer(shelf, Line(content)).take(_spec(content), _ignore)
    assert not shelf.place(ID).exists()
    with pytest.raises(NotFound):
        shelf.get(ID)


async def test_another_archive_than_was_announced_is_refused(shelf: Shelf) -> None:
    content = archive()
    for wrong in (
        replace(_spec(content), sha256="0" * 64),
        replace(_spec(content), size_bytes=len(content) - 1024),
    ):
        with pytest.raises(Refused, match="not the archive"):
            await Importer(shelf, Line(content)).take(wrong, _ignore)
        assert not shelf.place(ID).exists()


async def test_a_cancelled_import_leaves_nothing(shelf: Shelf) -> None:
    content = archive()
    begun = asyncio.Event()

    class Slow:
        async def archive(self, transfer_id: str, offset: int) -> AsyncGenerator[bytes, None]:
            yield content[:4000]
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(Importer(shelf, Slow()).take(_spec(content), _ignore))
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not shelf.place(ID).exists()
