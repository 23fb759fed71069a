"""A later checkpoint of a container: what changed is pushed, and every reader restores it right.

How long it takes beside the first one is the bench's to say (row delta-time).
"""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from agent.formats import record
from agent.formats.layout import ANNOTATION_RESTORE_MODE as RESTORE_MODE
from agent.formats.record import CheckpointRecord
from deploy.devnode.pods import Pod, Pods, PodSpec
from deploy.devnode.world import CLUSTER, Deployment, World
from tests.integration.restoring import outcome, restoring

pytestmark = pytest.mark.node

MIB: Final = int(os.environ.get("SNAP_DELTA_MIB", "256"))
MODE: Final = os.environ.get("SNAP_DELTA_MODE", "full")
WAIT_S: Final = 120.0


# A parent and two children that share memory until one of them writes; SIGUSR2 replaces one child and
# changes some of the parent's pages, SIGUSR1 has all say what they hold.
FAMILY: Final = """
import os, signal, time, zlib
memory = bytearray(os.urandom(24 << 20))
child = 0
def say(line): os.write(1, (line + "\\n").encode())
def change(first): [memory.__setitem__(slice(n, n + 9), os.urandom(9)) for n in range(first, len(memory), 99 << 12)]
def show(name): say(f"{name} {zlib.crc32(memory):08x}")
def fork(name):
    global child
    child = os.fork()
    if child: return
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, lambda *_: show(name))
    memory[:2 << 20] = os.urandom(2 << 20)
    say("up " + name)
    while True: time.sleep(9)
def renew(*_):
    os.kill(child, 9); os.waitpid(child, 0)
    change(4096)
    fork("second")
def everybody(*_): show("parent"); os.kill(kept, signal.SIGUSR1); os.kill(child, signal.SIGUSR1)
signal.signal(signal.SIGUSR1, everybody)
signal.signal(signal.SIGUSR2, renew)
fork("kept")
kept = child
fork("first")
while True: time.sleep(9)
"""


# Memory full of random pages; SIGUSR2 writes zeros to two of five, SIGUSR1 has it say what it holds. A large block
# begins 16 bytes after the start of a page.
WIPED: Final = """
import os, signal, time, zlib
memory = bytearray(64 << 20)
for n in range(0, len(memory), 1 << 20): memory[n:n + (1 << 20)] = os.urandom(1 << 20)
def say(line): os.write(1, (line + "\\n").encode())
def wipe(*_):
    for n in range(4080, len(memory) - (2 << 12), 5 << 12): memory[n:n + (2 << 12)] = bytes(2 << 12)
    say("wiped 1")
signal.signal(signal.SIGUSR1, lambda *_: say(f"sum {zlib.crc32(memory):08x}"))
signal.signal(signal.SIGUSR2, wipe)
say("up 1")
while True: time.sleep(9)
"""


def said(pod: Pod, word: str) -> list[str]:
    return [line.split()[1] for line in pod.lines() if line.startswith(word + " ")]


def ask(pods: Pods, pod: Pod, number: signal.Signals, word: str) -> str:
    """Send a signal and return the answer."""
    known = len(said(pod, word))
    pods.exec(pod, "kill", f"-{number.value}", "1")
    return wait(pod, word, known)


def wait(pod: Pod, word: str, known: int = 0) -> str:
    deadline = time.monotonic() + WAIT_S
    while len(said(pod, word)) <= known:
        assert time.monotonic() < deadline, f"no {word!r} in {WAIT_S} s"
        time.sleep(0.05)
    return said(pod, word)[-1]


def checkpoint(deployed: Deployment, pod: Pod, image: str) -> dict[str, Any]:
    """Checkpoint and push; the answer, with the job's push in ``push``."""
    answer: dict[str, Any] = deployed.rest.post(
        "/checkpoint/kubelet/checkpoint-and-push?checkpoint_config_name=checkpoints",
        {
            "pod_name": pod.spec.name,
            "namespace": pod.spec.namespace,
            "cluster": CLUSTER,
            "node_name": pod.node.name,
            "image_name": image,
            "tag": f"t{time.monotonic_ns()}",
        },
    )
    _, job = deployed.rest.call("GET", f"/jobs/{answer['job_id']}")
    return {**answer, "push": job["pushes"][0]}


def record_of(deployed: Deployment, answer: dict[str, Any]) -> CheckpointRecord:
    name = f"/var/lib/snap/checkpoints/{answer['push']['checkpoint_id']}"
    return record.read(deployed.agents[1].node.host_path(name))


def by_digest(answer: dict[str, Any]) -> str:
    repository = answer["image"].partition("@")[0].rpartition(":")[0]
    return f"{repository}@{answer['image_digest']}"


@pytest.fixture
def hog(pods1: Pods) -> Pod:
    pod = pods1.run(PodSpec("hog", "hog", env={"HOG_MIB": str(MIB), "HOG_MODE": MODE}))
    wait(pod, "ready")
    return pod


def test_five_percent_changed_are_pushed_and_restored_by_everybody(
    deployed: Deployment, world: World, pods1: Pods, pods2: Pods, hog: Pod
) -> None:
    base = checkpoint(deployed, hog, "delta")
    ask(pods1, hog, signal.SIGUSR2, "changed")
    wanted = ask(pods1, hog, signal.SIGUSR1, "sum")
    later = checkpoint(deployed, hog, "delta")
    known = record_of(deployed, later)
    assert known.parent == base["push"]["checkpoint_id"]
    assert later["push"]["pushed_bytes"] <= 0.08 * MIB * (1 << 20)

    annotations = {"snap.weaversoft.io/checkpoint": json.dumps({"app": by_digest(later)})}
    ours = pods2.run(replace(hog.spec, handler="snap", annotations=annotations))
    assert ask(pods2, ours, signal.SIGUSR1, "sum") == wanted

    login = world.checkpoints.user, world.checkpoints.password
    stock = pods2.run(replace(hog.spec, name="stock", image=by_digest(later), auth=login))
    assert ask(pods2, stock, signal.SIGUSR1, "sum") == wanted

    # the third is a delta of the same base
    ask(pods1, hog, signal.SIGUSR2, "changed")
    third = checkpoint(deployed, hog, "elsewhere")  # blobs are mounted, not sent
    assert record_of(deployed, third).parent == base["push"]["checkpoint_id"]
    assert third["push"]["pushed_bytes"] <= 0.13 * MIB * (1 << 20)
    wanted = ask(pods1, hog, signal.SIGUSR1, "sum")
    annotations = {"snap.weaversoft.io/checkpoint": json.dumps({"app": by_digest(third)})}
    again = replace(hog.spec, name="again", handler="snap", annotations=annotations)
    assert ask(pods2, pods2.run(again), signal.SIGUSR1, "sum") == wanted


def test_a_node_with_the_base_brings_what_differs_and_restores_it_eagerly_and_lazily(
    deployed: Deployment, pods1: Pods, pods2: Pods, hog: Pod
) -> None:
    wanted = [ask(pods1, hog, signal.SIGUSR1, "sum")]
    images = [by_digest(checkpoint(deployed, hog, "shared"))]
    ask(pods1, hog, signal.SIGUSR2, "changed")
    wanted.append(ask(pods1, hog, signal.SIGUSR1, "sum"))
    images.append(by_digest(checkpoint(deployed, hog, "shared")))
    cache = pods2.node.host_path("/var/lib/snap/cache")
    stored = []
    for mode, which in (("eager", 0), ("eager", 1), ("lazy", 1), ("lazy", 0)):
        pod = pods2.run(restoring(hog.spec, images[which], annotations={RESTORE_MODE: mode}))
        told = outcome(deployed, pod)
        assert (told["action"], told["mode"]) == ("restored", mode), told
        assert ask(pods2, pod, signal.SIGUSR1, "sum") == wanted[which]
        pods2.remove(pod)
        stored.append(bytes_in(cache))
    assert stored[1] - stored[0] < 0.1 * MIB * (1 << 20)


def bytes_in(folder: Path) -> int:
    """Of the files below it, each once whatever names it has."""
    found = [path.lstat() for path in folder.rglob("*") if path.is_file()]
    return sum({state.st_ino: state.st_size for state in found}.values())


def test_processes_that_came_and_went_are_restored_by_everybody(
    deployed: Deployment, world: World, pods1: Pods, pods2: Pods
) -> None:
    python = ("/usr/bin/python3", "-S", "-E", "-u", "-c", FAMILY)
    spec = PodSpec("family", "hog", command=python)
    pod = pods1.run(spec)
    wait(pod, "up", 1)
    base = checkpoint(deployed, pod, "family")
    ask(pods1, pod, signal.SIGUSR2, "up")
    later = checkpoint(deployed, pod, "family")
    assert record_of(deployed, later).parent == base["push"]["checkpoint_id"]
    wanted = family(pods1, pod)

    annotations = {"snap.weaversoft.io/checkpoint": json.dumps({"app": by_digest(later)})}
    ours = pods2.run(replace(spec, handler="snap", annotations=annotations))
    assert family(pods2, ours) == wanted
    login = world.checkpoints.user, world.checkpoints.password
    stock = pods2.run(replace(spec, name="stock", image=by_digest(later), auth=login))
    assert family(pods2, stock) == wanted


def test_pages_that_became_zeros_travel_for_nothing_and_are_zeros_for_everybody(
    deployed: Deployment, world: World, pods1: Pods, pods2: Pods
) -> None:
    spec = PodSpec("wiped", "hog", command=("/usr/bin/python3", "-S", "-E", "-u", "-c", WIPED))
    pod = pods1.run(spec)
    wait(pod, "up")
    base = checkpoint(deployed, pod, "wiped")
    ask(pods1, pod, signal.SIGUSR2, "wiped")
    wanted = ask(pods1, pod, signal.SIGUSR1, "sum")
    later = checkpoint(deployed, pod, "wiped")
    known = record_of(deployed, later)
    assert known.parent == base["push"]["checkpoint_id"]
    assert known.size_bytes > 64 << 20  # CRIU dumps what was written to, zeros as well
    assert later["push"]["pushed_bytes"] < 2 << 20

    annotations = {"snap.weaversoft.io/checkpoint": json.dumps({"app": by_digest(later)})}
    ours = pods2.run(replace(spec, handler="snap", annotations=annotations))
    assert ask(pods2, ours, signal.SIGUSR1, "sum") == wanted
    login = world.checkpoints.user, world.checkpoints.password
    stock = pods2.run(replace(spec, name="stock", image=by_digest(later), auth=login))
    assert ask(pods2, stock, signal.SIGUSR1, "sum") == wanted


def family(pods: Pods, pod: Pod) -> list[str]:
    """The checksums of parent and children."""
    parent = ask(pods, pod, signal.SIGUSR1, "parent")
    return [parent, wait(pod, "kept"), wait(pod, "second")]
