"""An agent that has just begun does not ask a registry without the credentials that are on their way to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent import errors
from agent.adapters import Trust
from agent.formats.digest import Digest
from agent.formats.jobs import RegistryAccess, Report
from agent.link.frames import PullAccessNews
from agent.restore.grants import Grants
from agent.restore.holding import HeldImages

IMAGE = f"reg.example:5000/snap@sha256:{'a' * 64}"
ACCESS = RegistryAccess("reg.example:5000", username="reader", password="x")


class Shelf:
    """``restore.ports.Fetcher``: notes how each image was asked for; ``here``: it is in the cache."""

    def __init__(self, folder: Path, *, here: bool) -> None:
        self.folder, self.here = folder, here
        self.asked: list[RegistryAccess | None] = []

    async def fetch(
        self, image: str, access: RegistryAccess | None, report: Report, *, hurried: bool = False
    ) -> Path:
        self.asked.append(access)
        return self.folder

    @contextmanager
    def hold(self, wanted: Digest) -> Iterator[Path]:
        if not self.here:
            raise errors.NotFound("not here")
        yield self.folder

    async def flat(self, wanted: Digest) -> Path:
        return self.folder


def fetching(shelf: Shelf, trust: Trust) -> asyncio.Task[None]:
    images = HeldImages(shelf, trust, lambda _: None)
    return asyncio.create_task(images.fetch(IMAGE, time.monotonic() + 10))


async def test_the_first_fetch_waits_for_them(tmp_path: Path) -> None:
    trust, shelf = Trust(Grants(tmp_path / "grants", "dev")), Shelf(tmp_path, here=False)
    task = fetching(shelf, trust)
    await asyncio.sleep(0)
    await trust.pull_access(PullAccessNews(replace=True, registries=(ACCESS,)))
    await asyncio.wait_for(task, 5)
    assert shelf.asked == [ACCESS]


async def test_what_is_here_waits_for_nothing(tmp_path: Path) -> None:
    trust = Trust(Grants(tmp_path / "grants", "dev"), told_within_s=60)
    shelf = Shelf(tmp_path, here=True)
    await asyncio.wait_for(fetching(shelf, trust), 5)
    assert shelf.asked == [None]


@pytest.mark.parametrize("told", [True, False], ids=["no such registry", "late in its life"])
async def test_later_nobody_waits(tmp_path: Path, told: bool) -> None:
    within_s = 60.0 if told else 0.0
    trust = Trust(Grants(tmp_path / "grants", "dev"), told_within_s=within_s)
    shelf = Shelf(tmp_path, here=False)
    if told:
        await trust.pull_access(PullAccessNews(replace=True))
    await asyncio.wait_for(fetching(shelf, trust), 5)
    assert shelf.asked == [None]
