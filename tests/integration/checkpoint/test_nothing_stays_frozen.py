"""kill -9 of CRIU, runc, the script or the agent in the freeze window: the container runs afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import errors
from agent.checkpoint import inspection, service, watchdog, window
from agent.checkpoint.plan import Folder
from agent.formats.jobs import CheckpointId, CheckpointSpec, JobId, Progress
from agent.runtimes import detached, netlock, runc
from tests.integration.checkpoint.conftest import (
    DATA,
    FACTS,
    Pod,
    Workbench,
    new_job,
    spec_of,
    until,
)

pytestmark = pytest.mark.node
FATES = {"criu": "--rpc -t", "runc": "checkpoint --image-path", "script": "snap-dump run"}


def processes(bench: Workbench, words: str) -> list[int]:
    """Processes of the node with ``words`` in their command line, as this machine numbers them."""
    node = bench.node.root.with_name("ns") / "mnt"
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_text().replace("\0", " ")
            if words in line and (entry / "ns/mnt").readlink() == node.readlink():
                found.append(int(entry.name))
    return found


def kill(bench: Workbench, words: str) -> None:
    for pid in processes(bench, words):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def in_the_window(bench: Workbench, but: frozenset[str] = frozenset()) -> None:
    """CRIU copies memory. (Killed while it enters or leaves a process, it takes that one along.)

    Args:
        but: checkpoints from before.
    """
    checkpoints = bench.host.path(f"{DATA}/checkpoints")

    def copied() -> int:
        pages = checkpoints.glob("*/checkpoint/pages-*.img")
        return sum(one.stat().st_size for one in pages if one.parts[-3] not in but)

    async with asyncio.timeout(60):
        while copied() < 1 << 20:  # noqa: ASYNC110 - another program's doing
            await asyncio.sleep(0.001)


def nothing(progress: Progress) -> None:
    """Progress is of no interest here."""


@pytest.mark.parametrize("victim", sorted(FATES))
async def test_a_part_of_the_dump_is_killed(bench: Workbench, victim: str) -> None:
    pod = await bench.hog()
    failure = await struck(bench, pod, victim)
    assert failure.code == errors.CHECKPOINT_FAILED
    assert "runs on" in failure.message
    assert bench.runs(pod)
    assert bench.leftovers() == []
    await bench.checkpoint(pod)
    assert bench.runs(pod)


async def struck(bench: Workbench, pod: Pod, victim: str) -> errors.SnapError:
    """What comes of a dump that loses a part in the window; one that was over by then is no case."""
    for _ in range(10):
        before = frozenset(one.checkpoint_id for one in bench.shelf.list())
        dump = asyncio.create_task(bench.checkpoint(pod))
        await in_the_window(bench, before)
        kill(bench, FATES[victim])
        try:
            await dump
        except errors.SnapError as failure:
            return failure
    raise AssertionError("every dump was over before it was struck")


async def begin_alone(bench: Workbench, pod: Pod) -> tuple[JobId, CheckpointSpec, Folder]:
    """What an agent leaves that dies in the window: its notes, and the script that runs on."""
    job, spec = JobId(new_job()), spec_of(pod)
    inspected = await bench.service._inspect(spec)
    dump = service._dump(job, spec, inspected, "runc", FACTS)
    folder = Folder(bench.host, DATA, job)
    await bench.service._begin(folder, dump, inspected)
    await window._begin(folder)
    await in_the_window(bench)
    return job, spec, folder


async def test_a_new_agent_takes_over_a_dump_that_runs(bench: Workbench) -> None:
    pod = await bench.hog()
    job, spec, _ = await begin_alone(bench, pod)
    (result,) = await bench.another_service().recover(job, spec, nothing) or ()
    assert result.checkpoint_id == spec.containers[0].checkpoint_id
    assert bench.runs(pod)
    assert bench.leftovers() == []


async def test_a_new_agent_finds_a_finished_checkpoint(bench: Workbench) -> None:
    pod = await bench.run("counter")
    job, spec = JobId(new_job()), spec_of(pod)
    done = await bench.service.checkpoint(job, spec, nothing)
    assert await bench.another_service().recover(job, spec, nothing) == done


async def test_nothing_begun_nothing_recovered(bench: Workbench) -> None:
    pod = await bench.run("counter")
    spec = spec_of(pod)
    half = bench.shelf.place(spec.containers[0].checkpoint_id)
    (half / "checkpoint").mkdir(parents=True)
    assert await bench.service.recover(JobId(new_job()), spec, nothing) is None
    assert not half.exists()


async def test_everything_is_killed_and_the_watchdog_thaws(
    bench: Workbench, oci: Callable[[Pod], runc.OciRuntime]
) -> None:
    pod = await bench.hog()
    job, spec, folder = await begin_alone(bench, pod)
    process = folder.process()
    assert process
    for member in detached.members(bench.host, process):
        bench.node.run(["kill", "-9", str(member)], check=False)
    assert bench.runs(pod)
    # CRIU can also die with the freezer on
    await oci(pod).pause(pod.containers["app"])
    assert await watchdog.look(bench.host, DATA, frozenset({job})) == 0
    assert await watchdog.look(bench.host, DATA) == 1
    assert bench.runs(pod)
    with pytest.raises(errors.SnapError):
        await bench.another_service().recover(job, spec, nothing)
    assert bench.leftovers() == []


async def test_a_cancelled_dump(bench: Workbench) -> None:
    pod = await bench.hog()
    dump = asyncio.create_task(bench.checkpoint(pod))
    await in_the_window(bench)
    dump.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dump
    assert bench.runs(pod)
    assert bench.leftovers() == []
    assert processes(bench, "snap-dump") == processes(bench, FATES["criu"]) == []


async def test_a_cancelled_dump_of_the_container_runtime(bench: Workbench) -> None:
    pod = await bench.hog()
    dump = asyncio.create_task(bench.checkpoint(pod, engine="cri"))
    async with asyncio.timeout(60):
        while not processes(bench, FATES["criu"]):  # noqa: ASYNC110 - another program's doing
            await asyncio.sleep(0.001)
    dump.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dump
    assert bench.runs(pod)
    assert bench.leftovers() == []


async def test_a_disk_that_fills_up(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "check_room", lambda *_, **__: None)
    pod = await bench.hog()
    small = f"{DATA}/checkpoints"
    bench.node.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", small])
    try:
        with pytest.raises(errors.CommandFailed, match="disk is full"):
            await bench.checkpoint(pod)
        assert bench.runs(pod)
        assert bench.leftovers() == []
    finally:
        bench.node.run(["umount", small])


async def test_a_dump_that_takes_too_long(bench: Workbench) -> None:
    pod = await bench.hog()
    with pytest.raises(errors.Retryable) as failure:
        await bench.checkpoint(pod, timeout_s=0.05)
    assert failure.value.code == errors.TIMEOUT
    assert bench.runs(pod)
    assert bench.leftovers() == []


async def test_a_pause_of_an_operator_is_left_alone(
    bench: Workbench, oci: Callable[[Pod], runc.OciRuntime]
) -> None:
    pod = await bench.run("counter")
    until(lambda: pod.ticks() > 3)
    await oci(pod).pause(pod.containers["app"])
    assert await watchdog.look(bench.host, DATA) == 0
    await bench.checkpoint(pod, engine="runc")
    assert '"status": "paused"' in bench.status(pod)
    with pytest.raises(errors.Refused, match="paused"):
        await bench.checkpoint(pod, engine="cri")
    await oci(pod).resume(pod.containers["app"])
    assert bench.runs(pod)


async def test_a_network_lock_that_criu_left_is_removed(bench: Workbench) -> None:
    pod = await bench.run("counter")
    pid = (await bench.runtime.container(pod.containers["app"])).pid
    enter = ["nsenter", "-t", str(pid), "-n", "--"]
    for rule in (["-N", "CRIU"], ["-A", "CRIU", "-j", "DROP"], ["-I", "INPUT", "-j", "CRIU"]):
        bench.node.run([*enter, "iptables", *rule])
    assert await netlock.remove(bench.host, pid)
    assert "CRIU" not in bench.node.run([*enter, "iptables", "-S"]).stdout
    assert not await netlock.remove(bench.host, pid)
    assert not await netlock.remove(bench.host, 1)


async def test_what_no_job_knows_is_swept(bench: Workbench) -> None:
    pod = await bench.hog()
    _, spec, _ = await begin_alone(bench, pod)
    await bench.another_service().sweep()
    assert bench.leftovers() == []
    assert not bench.shelf.place(CheckpointId(spec.containers[0].checkpoint_id)).exists()
    assert bench.runs(pod)
