"""Engine kubelet: its archive is gone afterwards, whatever happened, and nobody else's is."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent import errors
from agent.checkpoint.consumed import EVERY_BYTES, Consumed
from agent.formats.jobs import JobId
from agent.runtimes import pods
from tests.integration.checkpoint.conftest import Workbench, new_job, spec_of, until

pytestmark = pytest.mark.node
ANOTHER = "checkpoint-other_default-app-2026-01-01T00:00:00Z.tar"


async def test_archives_of_others_stay(bench: Workbench) -> None:
    (bench.kubelet.folder / ANOTHER).touch()
    pod = await bench.run("counter")
    until(lambda: pod.ticks() > 3)
    (result,) = await bench.checkpoint(pod, engine="kubelet")
    assert result.engine == "kubelet"
    assert bench.runs(pod)
    assert bench.kubelet.archives == [ANOTHER]
    (bench.kubelet.folder / ANOTHER).unlink()


async def test_a_dump_that_fails_leaves_nothing_and_says_why(bench: Workbench) -> None:
    pod = await bench.run("counter")
    until(lambda: pod.ticks() > 3)
    whole = bench.kubelet.checkpoint

    async def half(namespace: str, pod_name: str, container: str, timeout_s: int) -> str:
        path = await whole(namespace, pod_name, container, timeout_s)
        os.truncate(bench.host.path(path), 2000)
        raise RuntimeError("writing the archive: no space left on device")

    bench.kubelet.checkpoint = half
    with pytest.raises(errors.CommandFailed) as failure:
        await bench.checkpoint(pod, engine="kubelet")
    assert "no space left" in failure.value.details
    assert bench.runs(pod)
    assert bench.leftovers() == bench.kubelet.archives == []


async def test_a_dump_that_trips_over_a_new_process_is_tried_once_more(bench: Workbench) -> None:
    pod = await bench.run("counter")
    until(lambda: pod.ticks() > 3)
    whole, left = bench.kubelet.checkpoint, [1]
    log = bench.host.path("/var/tmp/tripped.log")
    log.write_text("(10.0) Error (criu/seize.c:1): Unable to wait processes\n")

    async def tripping(namespace: str, pod_name: str, container: str, timeout_s: int) -> str:
        if left[0]:
            left[0] -= 1
            raise RuntimeError("criu failed: type NOTIFY errno 0 path= /var/tmp/tripped.log: x")
        return await whole(namespace, pod_name, container, timeout_s)

    bench.kubelet.checkpoint = tripping
    await bench.checkpoint(pod, engine="kubelet")
    assert len(bench.kubelet.asked) == 2
    assert bench.leftovers() == bench.kubelet.archives == []
    left[0] = 2
    with pytest.raises(errors.CommandFailed, match="could not be stopped in time"):
        await bench.checkpoint(pod, engine="kubelet")
    assert bench.leftovers() == bench.kubelet.archives == []
    log.unlink()


async def test_an_open_connection_is_named_as_the_cause(bench: Workbench) -> None:
    script = (
        "redis-server --save '' & until redis-cli ping; do sleep 0.1; done; "
        "(echo PING; sleep 600) | nc 127.0.0.1 6379"
    )
    pod = await bench.run("redis", command=("/bin/sh", "-c", script))
    until(lambda: any("+PONG" in line for line in pod.lines()))
    with pytest.raises(errors.CommandFailed, match="TCP connection is open"):
        await bench.checkpoint(pod, engine="kubelet")
    assert bench.leftovers() == bench.kubelet.archives == []


async def test_a_cancelled_checkpoint_waits_for_the_kubelet(bench: Workbench) -> None:
    pod = await bench.hog()
    dump = asyncio.create_task(bench.checkpoint(pod, engine="kubelet"))
    async with asyncio.timeout(60):
        while not bench.kubelet.asked:  # noqa: ASYNC110 - another program's doing
            await asyncio.sleep(0.001)
    dump.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dump
    assert bench.runs(pod)
    assert bench.leftovers() == bench.kubelet.archives == []


async def test_an_agent_that_died_has_its_archive_removed_by_the_next(bench: Workbench) -> None:
    pod = await bench.run("counter")
    until(lambda: pod.ticks() > 3)
    spec, job = spec_of(pod, engine="kubelet"), JobId(new_job())
    answered, held = asyncio.Event(), asyncio.Event()
    whole = bench.kubelet.checkpoint

    async def slow(namespace: str, pod_name: str, container: str, timeout_s: int) -> str:
        path = await whole(namespace, pod_name, container, timeout_s)
        answered.set()
        await held.wait()
        return path

    bench.kubelet.checkpoint = slow
    dying = asyncio.create_task(bench.service.checkpoint(job, spec, lambda _: None))
    async with asyncio.timeout(60):
        await answered.wait()
    assert len(bench.kubelet.archives) == 1
    with pytest.raises(errors.Retryable, match="interrupted"):
        await bench.another_service().recover(job, spec, lambda _: None)
    assert bench.kubelet.archives == []
    assert bench.runs(pod)
    held.set()
    with pytest.raises(errors.SnapError):  # what the dead one would have found
        await dying


async def test_volumes_are_warned_about_or_refused(bench: Workbench) -> None:
    volume = "/var/lib/kubelet/pods/k1/volumes/kubernetes.io~empty-dir/work"
    bench.host.path(volume).mkdir(parents=True, exist_ok=True)
    pod = await bench.run("counter", mounts=(pods.Mount("/work", volume),))
    until(lambda: pod.ticks() > 3)
    with pytest.raises(errors.Refused, match="kubelet saves no volumes"):
        await bench.checkpoint(pod, engine="kubelet", strict=True)
    (result,) = await bench.checkpoint(pod, engine="kubelet")
    assert any("volumes work" in said for said in result.warnings)


def test_what_was_read_is_given_back_to_the_disk(tmp_path: Path) -> None:
    file = tmp_path / "archive.tar"
    file.write_bytes(os.urandom(3 * EVERY_BYTES))
    before = file.stat().st_blocks
    with Consumed(file) as stream:
        while stream.read(1 << 20):
            pass
    assert file.stat().st_blocks <= before // 10
