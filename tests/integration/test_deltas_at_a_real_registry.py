"""Deltas against a real registry: what is sent, what comes back, and what happens when a base is lost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.formats import record
from agent.formats.digest import Digest
from agent.image.push import Pusher
from agent.image.registry import Registry
from tests.integration.own_registry import OwnRegistry
from tests.integration.shelf import MIB, Shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    own = OwnRegistry(tmp_path / "registry")
    own.start()
    yield Shelf(tmp_path / "shelf", own)
    own.kill()


async def test_only_what_changed_is_sent(shelf: Shelf, tmp_path: Path) -> None:
    shelf.make("base", 1)
    base = await shelf.push("base")
    shelf.make("delta", 2, 0.05)
    delta = await shelf.push("delta")
    assert shelf.known("delta").parent == "base"
    assert delta.pushed_bytes < 0.08 * base.pushed_bytes
    assert len(set(await shelf.digests(base)) & set(await shelf.digests(delta))) >= 4
    fetched = await shelf.comes_back("delta", tmp_path / "fetched")
    assert record.read(fetched).parent == "base"

    # pushed from what was fetched it is whole, and no delta any more
    shutil.copytree(fetched, shelf.parts("again"))
    whole = await shelf.push("again", "again", Pusher())
    assert whole.pushed_bytes > 0.9 * base.pushed_bytes
    assert record.read(await shelf.comes_back("again", tmp_path / "again")).parent == ""


async def test_same_checkpoint_again_sends_no_layer_and_is_the_same_image(shelf: Shelf) -> None:
    shelf.make("base", 1)
    base = await shelf.push("base")
    shelf.make("delta", 2, 0.05)
    delta = await shelf.push("delta")
    for name, first in (("base", base), ("delta", delta)):
        again = await shelf.push(name)
        assert again.digest == first.digest
        assert again.pushed_bytes < 16 << 10  # its manifest
        mounted = await shelf.push(name, "another")
        assert mounted.digest == first.digest
        assert mounted.pushed_bytes < 32 << 10


async def test_hashes_do_when_the_parts_of_the_base_are_gone(shelf: Shelf, tmp_path: Path) -> None:
    base = shelf.make("base", 1)
    whole = await shelf.push("base")
    shelf.bases.remember(base)
    shutil.rmtree(base)
    shelf.make("delta", 2, 0.05)
    for repository in ("r", "another"):
        delta = await shelf.push("delta", repository)
        assert shelf.known("delta").parent == "base"
        assert delta.pushed_bytes < 0.08 * whole.pushed_bytes
        await shelf.comes_back("delta", tmp_path / repository)


async def test_whole_image_is_pushed_when_the_registry_lost_the_base(
    shelf: Shelf, tmp_path: Path
) -> None:
    base = shelf.make("base", 1)
    whole = await shelf.push("base")
    shelf.bases.remember(base)
    shutil.rmtree(base)
    lost = (await shelf.digests(whole))[3]
    for path in shelf.registry.blob_files(lost.removeprefix("sha256:")):
        path.unlink()
    shelf.make("later", 2, 0.05)
    pushed = await shelf.push("later")
    assert shelf.known("later").parent == ""
    assert pushed.pushed_bytes > 0.9 * whole.pushed_bytes
    await shelf.comes_back("later", tmp_path / "fetched")


async def test_layer_that_the_registry_lost_is_sent_again_from_the_base(
    shelf: Shelf, tmp_path: Path
) -> None:
    shelf.make("base", 1)
    whole = await shelf.push("base")
    lost = (await shelf.digests(whole))[3]
    for path in shelf.registry.blob_files(lost.removeprefix("sha256:")):
        path.unlink()
    shelf.registry.kill()
    shelf.registry.start()  # it remembers descriptors
    shelf.make("delta", 2, 0.05)
    pushed = await shelf.push("delta")
    assert shelf.known("delta").parent == "base"
    assert 0.2 < pushed.pushed_bytes / whole.pushed_bytes < 0.8
    await shelf.comes_back("delta", tmp_path / "fetched")


async def test_base_whose_image_was_deleted_is_none(shelf: Shelf) -> None:
    shelf.make("base", 1)
    whole = await shelf.push("base")
    async with Registry.connect(shelf.registry.access) as client:
        await client.delete_manifest("r", Digest(whole.digest))
    shelf.make("later", 2, 0.05)
    await shelf.push("later")
    assert shelf.known("later").parent == ""


async def test_memory_that_changed_too_much_is_a_new_base(shelf: Shelf, tmp_path: Path) -> None:
    shelf.make("base", 1)
    await shelf.push("base")
    shelf.make("far", 2, 0.7)
    await shelf.push("far")
    assert shelf.known("far").parent == ""
    shutil.copytree(shelf.parts("far"), shelf.parts("near"))
    at = "2026-01-03T00:00:00Z"
    shelf.note("near", checkpoint_id="near", created_at=at, pushed=(), pushed_at="")
    near = await shelf.push("near")
    assert shelf.known("near").parent == "far"
    assert near.pushed_bytes < MIB
    await shelf.comes_back("near", tmp_path / "fetched")
