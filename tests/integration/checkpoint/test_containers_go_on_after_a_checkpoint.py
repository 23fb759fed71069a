"""Checkpoints of real containers: the original goes on, and readers of the format take the archive."""

from __future__ import annotations

import asyncio
import json
import tarfile
from pathlib import Path

import pytest

from agent.checkpoint import archive
from agent.formats import layout
from agent.formats.jobs import CheckpointResult
from agent.runtimes import pods
from tests.integration.checkpoint.conftest import Workbench, until

pytestmark = pytest.mark.node


def download(bench: Workbench, result: CheckpointResult) -> str:
    """The archive as a file on the node, whose path is returned."""
    path = f"/var/tmp/{result.checkpoint_id}.tar"
    with bench.host.path(path).open("wb") as out:
        for piece in archive.read(bench.shelf.parts(result.checkpoint_id)):
            out.write(piece)
    return path


@pytest.mark.parametrize("engine", ["runc", "kubelet", "cri"])
async def test_a_process_with_memory(bench: Workbench, engine: str) -> None:
    pod = await bench.hog(320)
    (result,) = await bench.checkpoint(pod, engine=engine)
    assert bench.runs(pod)
    assert result.size_bytes > 320 << 20
    assert result.pause_ms > 0
    assert result.engine == engine
    assert "@sha256:" in result.image_ref
    assert json.loads(result.fingerprint_json)["memory_bytes"] > 320 << 20
    told = json.loads(result.template_json)  # variables by name: their values can be secrets
    assert "HOG_MIB" in told["env"]
    assert told["mounts"]
    assert bench.leftovers() == bench.kubelet.archives == []
    path = download(bench, result)
    try:
        shown = bench.node.run(["checkpointctl", "show", path]).stdout
    finally:
        bench.host.path(path).unlink()
    assert "containerd" in shown
    assert "app" in shown


async def test_redis_with_a_connected_client(bench: Workbench) -> None:
    script = (
        "redis-server --save '' & until redis-cli set key value; do sleep 0.1; done; "
        "(while echo PING; do sleep 0.2; done) | nc 127.0.0.1 6379"
    )
    pod = await bench.run("redis", command=("/bin/sh", "-c", script))

    def answers() -> int:
        return sum("+PONG" in line for line in pod.lines())

    until(lambda: answers() > 1)
    (result,) = await bench.checkpoint(pod)
    assert result.engine == "runc"
    assert "tcp-close" in result.criu_options
    seen = answers()
    until(lambda: answers() > seen + 1)  # over the same connection
    got = await bench.runtime.exec_sync(pod.containers["app"], ("redis-cli", "get", "key"))
    assert got.stdout == b"value\n"


@pytest.mark.parametrize("engine", ["runc", "kubelet", "cri"])
async def test_containerd_restores_the_archive_by_itself(bench: Workbench, engine: str) -> None:
    pod = await bench.run("counter")
    until(lambda: pod.ticks() > 3)
    (result,) = await bench.checkpoint(pod, engine=engine)
    last = pod.ticks()
    path = download(bench, result)
    spec = pods.SandboxSpec(
        name="restored", namespace="default", uid="r", log_directory="/var/log/pods/restored"
    )
    bench.host.path("/var/log/pods/restored/app.log").unlink(missing_ok=True)
    sandbox = await bench.runtime.run_sandbox(spec)
    bench.made.append(sandbox)
    made = pods.ContainerSpec(name="app", image=path, log_name="app.log")
    container = await bench.runtime.create(sandbox, spec, made)
    await bench.runtime.start(container)
    log = bench.host.path("/var/log/pods/restored/app.log")
    until(lambda: log.exists() and last + 3 in _ticks(log))
    ticks = _ticks(log)
    # the runtime has the log in its archive, with what came between the dump and its copy
    start = ticks[0] if engine == "runc" else 1
    assert sorted(set(ticks)) == list(range(start, ticks[-1] + 1))
    assert engine != "runc" or 3 < start <= last + 1
    assert _is_in_its_own_cgroups(bench, container)
    bench.host.path(path).unlink()


async def test_files_and_volumes_are_of_the_same_moment(bench: Workbench) -> None:
    volume = "/var/lib/kubelet/pods/p1/volumes/kubernetes.io~empty-dir/work"
    bench.host.path(volume).mkdir(parents=True, exist_ok=True)
    script = (
        "mkdir -p /gone && rm -rf /opt/counter.sh; n=0; while :; do n=$((n+1)); "
        "echo $n >/work/n; echo $n >/dev/shm/n; echo $n >/n; echo tick $n; sleep 0.02; done"
    )
    pod = await bench.run(
        "counter",
        command=("/bin/sh", "-c", script),
        mounts=(pods.Mount("/work", volume),),
    )
    until(lambda: pod.ticks() > 10)
    (result,) = await bench.checkpoint(pod)
    parts = bench.shelf.parts(result.checkpoint_id)
    written = [
        _member(parts, layout.ROOTFS_DIFF, "n"),
        _member(parts, f"{layout.VOLUMES_DIR}/work.tar", "./n"),
        _member(parts, layout.SHM_TAR, "./n"),
    ]
    numbers = [int(text) for text in written if text.strip()]
    assert len(numbers) >= 2  # the shell may stand between emptying one of them and writing it
    assert max(numbers) - min(numbers) <= 1  # or between two of its writes
    assert "opt/.wh.counter.sh" in _names(parts / layout.ROOTFS_DIFF)
    index = json.loads((parts / layout.VOLUMES_INDEX).read_text())
    assert index == [{"name": "work", "destination": "/work", "kind": "emptydir"}]
    assert bench.runs(pod)


def _is_in_its_own_cgroups(bench: Workbench, container: str) -> bool:
    root = "/run/containerd/runc/k8s.io"
    said = json.loads(bench.node.run(["runc", "--root", root, "state", container]).stdout)
    lines = bench.node.run(["cat", f"/proc/{said['pid']}/cgroup"]).stdout.splitlines()
    used = [line for line in lines if not line.endswith(":/")]
    return bool(used) and all(container in line for line in used)


def _ticks(log: Path) -> list[int]:
    return [int(line.split("tick ")[1].split()[0]) for line in log.read_text().splitlines()]


def _names(archive_file: Path) -> list[str]:
    with tarfile.open(archive_file) as tar:
        return tar.getnames()


def _member(parts: Path, archive_name: str, member: str) -> bytes:
    with tarfile.open(parts / archive_name) as tar:
        content = tar.extractfile(member)
        assert content
        return content.read()


async def test_several_containers_stand_still_together(bench: Workbench) -> None:
    pod = await bench.run("counter", names=("one", "two"))
    until(lambda: min(pod.ticks("one"), pod.ticks("two")) > 3)
    first, second = await bench.checkpoint(pod)
    assert first.pause_ms == second.pause_ms > 0
    assert bench.runs(pod, "one")
    assert bench.runs(pod, "two")
    assert len(bench.shelf.list()) == 2


async def test_a_container_that_is_not_to_go_on_ends(bench: Workbench) -> None:
    pod = await bench.run("counter")
    until(lambda: pod.ticks() > 3)
    (result,) = await bench.checkpoint(pod, leave_running=False)
    assert not result.left_running
    app = pod.containers["app"]
    async with asyncio.timeout(60):
        while (await bench.runtime.container(app)).container.state != "exited":
            pass
