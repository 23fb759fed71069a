"""CRIU reads cgroups only of containers that made some; restored, each process is in those of its new container."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Final

import pytest

from agent.formats import layout
from agent.formats.jobs import CheckpointResult
from tests.integration.checkpoint.conftest import DATA, Pod, Workbench, until

pytestmark = pytest.mark.node

BUNDLES: Final = "/run/containerd/io.containerd.runtime.v2.task/k8s.io"
FOLDER: Final = "/var/tmp/restored-bare"
RUNC: Final = ("runc", "--root", f"{FOLDER}/state")
READS: Final = "adding cgroup"  # what CRIU's log says of each


@pytest.fixture
def bare(bench: Workbench) -> Iterator[str]:
    """The id of a container that a test restores with runc alone."""
    folder = bench.host.path(FOLDER)
    (folder / "work").mkdir(parents=True)
    yield "bare"
    bench.node.run([*RUNC, "delete", "--force", "bare"], check=False)
    shutil.rmtree(folder)


def restore(bench: Workbench, pod: Pod, result: CheckpointResult, name: str) -> dict[str, str]:
    """Restore beside the original, in cgroups of the new name; hierarchy → where the process is."""
    folder, bundle = bench.host.path(FOLDER), f"{BUNDLES}/{pod.containers['app']}"
    config = json.loads(bench.host.path(f"{bundle}/config.json").read_text())
    config["root"]["path"] = f"{bundle}/rootfs"
    config["linux"]["cgroupsPath"] = f"/kubepods/{name}"
    (folder / "config.json").write_text(json.dumps(config))
    images = f"{DATA}/checkpoints/{result.checkpoint_id}/{layout.CHECKPOINT_DIR}"
    words = ["--detach", "--file-locks", "--image-path", images, "--work-path", f"{FOLDER}/work"]
    line = " ".join([*RUNC, "restore", *words, "--bundle", FOLDER, name])
    quiet = f"</dev/null >{FOLDER}/out 2>&1"  # becomes the process's own
    said = bench.node.run(["sh", "-c", f"{line} {quiet}"], check=False)
    log = folder / "work/restore.log"
    assert said.returncode == 0, (folder / "out").read_text() + (
        log.read_text()[-2000:] if log.exists() else ""
    )
    pid = json.loads(bench.node.run([*RUNC, "state", name]).stdout)["pid"]
    return where(bench, pid)


def where(bench: Workbench, pid: int) -> dict[str, str]:
    """Hierarchy → the cgroup of a process, as the node sees it; without those that nobody uses."""
    lines = bench.node.run(["cat", f"/proc/{pid}/cgroup"]).stdout.splitlines()
    found = {names: path for _, names, path in (line.split(":", 2) for line in lines)}
    return {names: path for names, path in found.items() if path != "/"}


def log_of(bench: Workbench, result: CheckpointResult) -> str:
    return (bench.shelf.parts(result.checkpoint_id) / layout.DUMP_LOG).read_text()


async def test_a_runtimes_own_cgroups_are_not_read(bench: Workbench, bare: str) -> None:
    pod = await bench.run("counter")
    until(lambda: pod.ticks() > 3)
    (result,) = await bench.checkpoint(pod)
    assert bench.runs(pod)
    assert READS not in log_of(bench, result)
    seen = restore(bench, pod, result, bare)
    assert seen
    assert set(seen.values()) == {f"/kubepods/{bare}"}


async def test_cgroups_that_a_container_made_come_back(bench: Workbench, bare: str) -> None:
    ticking = "n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.05; done"
    script = f"(while :; do sleep 1; done) & {ticking}"
    pod = await bench.run("counter", command=("/bin/sh", "-c", script))
    until(lambda: pod.ticks() > 3)
    first = json.loads(bench.status(pod))["pid"]
    group = f"/sys/fs/cgroup/pids{where(bench, first)['pids']}"
    making = f"mkdir {group}/own; echo 77 >{group}/own/pids.max"
    move = f"[ $p = {first} ] || echo $p >{group}/own/cgroup.procs || :"  # some end meanwhile
    moving = f"for p in $(cat {group}/cgroup.procs); do {move}; done"
    bench.node.run(["sh", "-c", f"{making}; {moving}"])
    assert bench.host.path(f"{group}/own/cgroup.procs").read_text()
    (result,) = await bench.checkpoint(pod)
    assert bench.runs(pod)
    assert READS in log_of(bench, result)
    seen = restore(bench, pod, result, bare)
    assert set(seen.values()) == {f"/kubepods/{bare}"}
    own = bench.host.path(f"/sys/fs/cgroup/pids/kubepods/{bare}/own")
    assert (own / "pids.max").read_text().strip() == "77"
    assert (own / "cgroup.procs").read_text()
