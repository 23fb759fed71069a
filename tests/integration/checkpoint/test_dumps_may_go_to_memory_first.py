"""Memory images on a tmpfs: on the disk soon, the same bytes all the time, and nothing is left of it."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib

import pytest

from agent import errors
from agent.checkpoint import archive, scratch
from agent.checkpoint.scratch import Scratch
from agent.checkpoint.service import CheckpointService
from agent.formats import layout
from agent.formats.jobs import CheckpointId, CheckpointResult, JobId, Progress
from agent.runtimes import commands, tmpfs
from tests.integration.checkpoint.conftest import DATA, Workbench, new_job, spec_of

pytestmark = pytest.mark.node

NOBODY: frozenset[str] = frozenset()
MIB = 64


@pytest.fixture
def memory(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> Scratch:
    """Room in memory, whatever the machine has left."""
    monkeypatch.setattr(tmpfs, "memory", lambda _: (32 << 30, 31 << 30))
    made = Scratch(bench.host, bench.shelf, 1 << 60)
    equip(bench, made)
    return made


def equip(bench: Workbench, made: Scratch) -> None:
    bench.service = CheckpointService(dataclasses.replace(bench.service._ports, scratch=made))


def digest(bench: Workbench, result: CheckpointResult) -> str:
    found = hashlib.sha256()
    for piece in archive.read(bench.shelf.parts(result.checkpoint_id)):
        found.update(piece)
    return found.hexdigest()


def mounts(bench: Workbench) -> int:
    """How many tmpfs there are over images, as the node has it."""
    return bench.node.run(["cat", "/proc/self/mountinfo"]).stdout.count(f" {DATA}/checkpoints/")


async def test_a_checkpoint_is_whole_in_memory_and_then_on_the_disk(
    bench: Workbench, memory: Scratch
) -> None:
    pod = await bench.hog(MIB)
    (result,) = await bench.checkpoint(pod)
    assert bench.runs(pod)
    assert mounts(bench) == 1
    assert bench.leftovers() == []
    before = digest(bench, result)
    await memory.look({result.checkpoint_id})  # it is being read: there is time
    assert mounts(bench) == 1
    await memory.look(NOBODY)
    assert mounts(bench) == 0
    assert digest(bench, result) == before
    assert bench.shelf.marked() == ()
    assert not memory.forget_lost()
    assert bench.host.path("/run/snap").is_dir()
    assert not list(bench.host.path("/run/snap").glob("held-*"))


async def test_a_container_that_holds_the_mount_does_not_hold_the_memory(
    bench: Workbench, memory: Scratch
) -> None:
    pod = await bench.hog(MIB)
    (result,) = await bench.checkpoint(pod)
    images = f"{DATA}/checkpoints/{result.checkpoint_id}/{layout.CHECKPOINT_DIR}"
    hold = f"touch /run/held; while [ -e /run/held ]; do sleep 0.05; done; ls {images} | wc -l"
    holding = ["unshare", "--mount", "--propagation", "private", "sh", "-c", hold]
    other = asyncio.ensure_future(commands.run(bench.host, holding, timeout_s=120))
    held = bench.host.path("/run/held")
    try:
        async with asyncio.timeout(60):
            while not held.exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await memory.look(NOBODY)
    finally:
        held.unlink(missing_ok=True)
    assert (await other).text == "0"
    assert bench.shelf.parts(result.checkpoint_id).joinpath(layout.CHECKPOINT_DIR).stat()
    assert digest(bench, result)


async def test_a_move_that_was_interrupted_is_done_again(bench: Workbench, memory: Scratch) -> None:
    pod = await bench.hog(MIB)
    (result,) = await bench.checkpoint(pod)
    before = digest(bench, result)
    images = f"{DATA}/checkpoints/{result.checkpoint_id}/{layout.CHECKPOINT_DIR}"
    with pytest.raises(errors.Retryable):  # cut off after some of it, or before
        await tmpfs.copy_below(bench.host, images, 0.01)
    assert digest(bench, result) == before
    await Scratch(bench.host, bench.shelf, 0).look(NOBODY)  # a new agent, told to use the disk
    assert mounts(bench) == 0
    assert digest(bench, result) == before


async def test_one_that_is_deleted_takes_its_memory_along(
    bench: Workbench, memory: Scratch
) -> None:
    pod = await bench.hog(MIB)
    (result,) = await bench.checkpoint(pod)
    assert mounts(bench) == 1
    assert bench.shelf.delete(CheckpointId(result.checkpoint_id))
    assert mounts(bench) == 0
    assert not list(bench.host.path(f"{DATA}/checkpoints").iterdir())
    await memory.look(NOBODY)


async def test_one_that_a_reboot_took_is_not_offered(bench: Workbench, memory: Scratch) -> None:
    pod = await bench.hog(MIB)
    (result,) = await bench.checkpoint(pod)
    tmpfs.unmount(bench.host, f"{DATA}/checkpoints/{result.checkpoint_id}/{layout.CHECKPOINT_DIR}")
    assert memory.forget_lost() == (result.checkpoint_id,)
    assert bench.shelf.list() == ()


async def test_memory_that_runs_full_costs_the_application_nothing(
    bench: Workbench, memory: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "_SLACK", -(32 << 20))
    pod = await bench.hog(MIB)
    with pytest.raises(errors.CommandFailed, match="disk is full"):
        await bench.checkpoint(pod)
    assert bench.runs(pod)
    assert bench.leftovers() == []
    assert mounts(bench) == 0


async def test_without_room_it_goes_to_the_disk_and_says_so(
    bench: Workbench, memory: Scratch
) -> None:
    equip(bench, Scratch(bench.host, bench.shelf, 1 << 20))
    pod = await bench.hog(MIB)
    said: list[Progress] = []
    await bench.service.checkpoint(JobId(new_job()), spec_of(pod), said.append)
    assert any("to the disk; in memory:" in one.message for one in said)
    assert mounts(bench) == 0
    assert bench.runs(pod)
