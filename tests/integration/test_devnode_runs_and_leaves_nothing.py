"""The devnode itself: pods run, a checkpoint can be taken, and nothing stays behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from deploy.devnode import cgroups, lifecycle
from deploy.devnode.instance import Instance
from deploy.devnode.node import Node, wait_ready
from deploy.devnode.pods import Pod, Pods, PodSpec
from deploy.devnode.world import World

pytestmark = pytest.mark.node


def eventually(is_so: Callable[[], bool], timeout_s: float = 90) -> bool:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def ticks(pod: Pod) -> list[int]:
    return [int(line.split()[1]) for line in pod.lines() if line.startswith("tick ")]


def sums(pod: Pod) -> list[str]:
    return [line.split()[1] for line in pod.lines() if line.startswith("sum ")]


def has_sums(pod: Pod, wanted: int) -> bool:
    return len(sums(pod)) == wanted


@pytest.mark.parametrize("image", ["counter", "hog"])
def test_ticking_image_ticks(pods1: Pods, image: str) -> None:
    pod = pods1.run(PodSpec(image, image, env={"HOG_MIB": "8"}))
    assert eventually(lambda: len(ticks(pod)) > 5)


def test_hog_sums_its_memory_when_asked(pods1: Pods) -> None:
    pod = pods1.run(PodSpec("hog", "hog", env={"HOG_MIB": "8", "HOG_MODE": "full"}))
    assert eventually(lambda: "ready 8" in pod.lines())
    for wanted in (1, 2):
        pods1.exec(pod, "kill", "-USR1", "1")
        assert eventually(partial(has_sums, pod, wanted))
    assert len(set(sums(pod))) == 1


def test_redis_keeps_a_key(pods2: Pods) -> None:
    pod = pods2.run(PodSpec("redis", "redis"))
    assert eventually(lambda: any("Ready to accept" in line for line in pod.lines()))
    pods2.exec(pod, "redis-cli", "set", "a", "1")
    assert pods2.exec(pod, "redis-cli", "get", "a") == "1\n"


def test_handler_snap_starts_plain_pods(pods2: Pods) -> None:
    pod = pods2.run(PodSpec("plain", "counter", handler="snap"))
    assert eventually(lambda: len(ticks(pod)) > 2)


def test_criu_finds_the_node_good(node1: Node) -> None:
    assert "Looks good" in node1.run(["criu", "check"]).stdout


def test_node_cannot_reach_beyond_the_bridge(node1: Node) -> None:
    done = node1.run(["busybox", "wget", "-T", "2", "-O-", "http://192.0.2.1/"], check=False)
    assert done.returncode != 0


def test_containerd_comes_back_after_kill(world: World, node2: Node) -> None:
    before = node2.run(["pgrep", "-x", "containerd"]).stdout
    node2.kill_containerd()
    assert eventually(
        lambda: node2.run(["pgrep", "-x", "containerd"], check=False).stdout not in {"", before}
    )
    assert eventually(lambda: node2.run(["ctr", "version"], check=False).returncode == 0)
    wait_ready(node2)  # of CRI, which whatever comes next will ask


def test_checkpoint_registry_wants_the_password(world: World, tmp_path: Path) -> None:
    certificates = tmp_path / "certs"
    certificates.mkdir()
    (certificates / "ca.crt").write_bytes(world.ca_file.read_bytes())
    copy = [
        *world.parts.tool("skopeo"),
        "--insecure-policy",
        "copy",
        "-q",
        "--src-cert-dir",
        str(certificates),
        "--dest-cert-dir",
        str(certificates),
        f"docker://{world.base.host}/pause:latest",
        f"docker://{world.checkpoints.host}/pause:latest",
    ]
    refused = subprocess.run(copy, check=False, capture_output=True, text=True, timeout=180)
    assert refused.returncode != 0
    login = f"{world.checkpoints.user}:{world.checkpoints.password}"
    subprocess.run([*copy, "--dest-creds", login], check=True, timeout=180)


def test_killed_registry_comes_back_with_its_content(world: World, pods2: Pods) -> None:
    world.base.kill()
    assert not world.base.is_running
    world.base.start()
    pods2.pull("pause:latest")


def test_a_registry_that_is_kept_comes_back_by_itself(world: World, pods2: Pods) -> None:
    before = servers(world)
    world.base.keep()
    try:
        (server,) = servers(world) - before
        os.kill(server, signal.SIGKILL)
        assert eventually(lambda: bool(servers(world) - before - {server}), timeout_s=30)
        assert eventually(lambda: world.base.answers, timeout_s=30)
        pods2.pull("pause:latest")
    finally:
        world.base.kill()
        world.base.start()


def servers(world: World) -> set[int]:
    """The processes that serve base images; not the shell that starts them again."""
    ending = f"\0serve\0{world.instance.state / 'base.yml'}\0".encode()
    found = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            argv = file.read_bytes()
            if argv.endswith(ending) and not argv.startswith(b"sh\0"):
                found.add(int(file.parent.name))
    return found


def test_down_leaves_nothing() -> None:
    instance = Instance("gone")
    with lifecycle.claimed(instance):
        running = lifecycle.up(instance, print, nodes=(1,))
        pods = Pods(running.nodes[0])
        pods.run(PodSpec("c", "counter"))
        pods.close()
        lifecycle.down(instance)
    assert not instance.state.exists()
    assert not cgroups.folders_of(instance.cgroup)
    assert str(instance.state) not in Path("/proc/self/mounts").read_text()
    links = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout
    assert instance.bridge not in links
    assert instance.veth(1) not in links
    instance.lock_file.unlink()
