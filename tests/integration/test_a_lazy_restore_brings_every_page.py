"""A lazily restored container has every page in the end, or is killed at once; agents may come and go meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.formats import layout
from deploy.devnode.pods import Pod, Pods, PodSpec
from deploy.devnode.rest import Refusal
from deploy.devnode.world import Deployment, World
from tests.integration.restoring import outcome, restoring, save, state_files, wait_for

pytestmark = pytest.mark.node
HOG = PodSpec(name="lazyhog", image="hog", env={"HOG_MIB": "600", "HOG_HZ": "20"})
TRIES = 8
LAZY = {layout.ANNOTATION_RESTORE_MODE: "lazy"}


@dataclass(frozen=True, slots=True)
class Kept:
    """The hog's checkpoint image, and the checksum of its memory."""

    image: str
    checksum: str


def said(pod: Pod, word: str) -> list[list[str]]:
    return [line.split() for line in pod.lines() if line.startswith(word)]


def ticks(pod: Pod) -> int:
    lines = said(pod, "tick")
    return int(lines[-1][1]) if lines else 0


def checksum(pods: Pods, pod: Pod) -> str:
    before = len(said(pod, "sum"))
    os.kill(host_pid(pods, pod), signal.SIGUSR1)
    wait_for(lambda: len(said(pod, "sum")) > before, within_s=90)
    return said(pod, "sum")[-1][1]


def host_pid(pods: Pods, pod: Pod) -> int:
    """The container's only process, as this machine numbers it.

    By its cgroup: the command line of a process whose memory has not arrived can read as empty.
    """
    found = processes(lambda folder: pod.container_id in (folder / "cgroup").read_text())
    assert len(found) == 1, found
    return found[0]


def processes(matches: Callable[[Path], bool]) -> list[int]:
    """Processes of this machine whose folder in /proc matches."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if matches(folder):
                found.append(int(folder.name))
    return found


def work(pod: Pod) -> Path:
    return pod.node.host_path(f"/var/lib/snap/restores/{pod.container_id}")


def result(pod: Pod) -> dict[str, str]:
    """What the supervisor wrote when it ended."""
    text: str = wait_for(
        lambda: (work(pod) / "lazy.result").is_file() and (work(pod) / "lazy.result").read_text()
    )
    return dict(line.split("=", 1) for line in text.splitlines())


def of_transfer(pod_id: str, word: str) -> list[int]:
    """Processes that bring the container its memory: ``lazy-pages`` the daemon, ``run`` its supervisor."""

    def matches(folder: Path) -> bool:
        argv = (folder / "cmdline").read_bytes().split(b"\0")
        return word.encode() in argv and any(pod_id.encode() in part for part in argv)

    return processes(matches)


class Interrupted:
    """Does ``strike`` to the next container of the node whose lazy restore has come to a point.

    Attributes:
        container_id: whose it was; empty: all memory was there before it was seen.
    """

    def __init__(self, pods: Pods, reached: Callable[[Path, Path], bool], strike: int) -> None:
        self._works = pods.node.host_path("/var/lib/snap/restores")
        self._state = pods.node.host_path("/run/snap/state")
        self._reached, self._strike = reached, strike
        self._before = set(self._works.iterdir()) if self._works.is_dir() else set()
        self.container_id = ""
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Interrupted:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _run(self) -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            for folder in set(self._works.iterdir()) - self._before:
                if (folder / "lazy.result").is_file():
                    return
                if not self._reached(folder, self._state / folder.name):
                    continue
                for pid in of_transfer(folder.name, "lazy-pages"):
                    os.kill(pid, self._strike)
                    self.container_id = folder.name
                if self.container_id:  # else its daemon is not seen yet
                    return


def is_restoring(folder: Path, state: Path) -> bool:
    return (folder / "lazy.on").exists()


def is_let_go(folder: Path, state: Path) -> bool:
    return is_restoring(folder, state) and not state.with_name(state.name + ".restored").exists()


@contextlib.contextmanager
def keeping(
    pods: Pods, deployed: Deployment, hog: PodSpec, name: str, **how: str
) -> Iterator[Kept]:
    """A checkpoint of a hog of node 1, which runs for the block."""
    pod = pods.run(hog)
    wait_for(lambda: said(pod, "ready"), within_s=90)
    total = checksum(pods, pod)
    yield Kept(save(deployed, pod, name, **how).image, total)
    pods.remove(pod)


@pytest.fixture(scope="module")
def kept(world: World, deployed: Deployment) -> Iterator[Kept]:
    with keeping(world.pods(1), deployed, HOG, "lazy", restore="lazy") as one:
        yield one


@pytest.fixture
def fetched(deployed: Deployment, pods2: Pods, kept: Kept) -> Iterator[Kept]:
    """The image is in the cache of node 2, whose agent runs again afterwards."""
    cache = pods2.node.host_path(f"/var/lib/snap/cache/{kept.image.rpartition(':')[2]}")
    if not cache.is_dir():
        pod = pods2.run(
            restoring(HOG, kept.image, annotations={layout.ANNOTATION_RESTORE_MODE: "eager"})
        )
        wait_for(cache.is_dir, within_s=90)
        pods2.remove(pod)
    yield kept
    if not deployed.agents[2].is_running:
        deployed.agents[2].start()
        deployed.wait_connected(2)


@pytest.mark.parametrize("mode", ["lazy", "auto", ""], ids=["lazy", "auto", "as its checkpoint"])
def test_every_page_arrives(deployed: Deployment, pods2: Pods, fetched: Kept, mode: str) -> None:
    asked = {layout.ANNOTATION_RESTORE_MODE: mode} if mode else {}
    pod = pods2.run(restoring(HOG, fetched.image, annotations=asked))
    told = outcome(deployed, pod)
    assert (told["action"], told["mode"]) == ("restored", "lazy"), told
    wait_for(lambda: ticks(pod) > 5)
    assert checksum(pods2, pod) == fetched.checksum
    assert result(pod)["outcome"] == "complete"
    assert checksum(pods2, pod) == fetched.checksum
    wait_for(lambda: not (work(pod) / "lazy.json").exists())
    assert state_files(pod) == ["criu.conf"]
    wait_for(lambda: told_by_rest(deployed)["count"] > 0)
    assert told_by_rest(deployed)["last"]["mode"] == "lazy"


def told_by_rest(deployed: Deployment) -> dict[str, Any]:
    """What the control plane knows of restores from the hog's checkpoint."""
    [hog] = deployed.rest.get("/checkpoint/list?pod_name=lazyhog")["checkpoints"]
    seen: dict[str, Any] = deployed.rest.get(f"/checkpoint/{hog['id']}")["restores"]
    return seen


def test_a_daemon_that_dies_during_the_restore_means_a_cold_start(
    deployed: Deployment, pods2: Pods, fetched: Kept
) -> None:
    pod = run_struck_in_time(pods2, restoring(HOG, fetched.image, annotations=LAZY))
    told = outcome(deployed, pod)
    assert (told["action"], told["code"]) == ("failed", "lazy_lost"), told
    wait_for(lambda: said(pod, "ready"), within_s=90)  # filled anew: it started cold
    assert pods2.is_running(pod)
    assert state_files(pod) == []


def run_struck_in_time(pods: Pods, spec: PodSpec) -> Pod:
    """A pod whose daemon was killed before its restore was done.

    A strike in the moment between restore and start makes the start fail (a kubelet tries again, cold): once more then.
    """
    for left in reversed(range(TRIES)):
        try:
            with Interrupted(pods, is_restoring, signal.SIGKILL) as interrupted:
                pod = pods.run(spec)
        except grpc.RpcError as failure:
            if not left or "container that has stopped" not in str(failure.details()):
                raise
            pods.remove_all()
            continue
        if interrupted.container_id:
            return pod
        pods.remove(pod)  # a busy machine was late
    raise AssertionError("each restore was done before its daemon was killed")


def held_up(pods: Pods, kept: Kept) -> Pod:
    """A pod that runs, and whose daemon was stopped before all its memory was there."""
    for _ in range(TRIES):
        with Interrupted(pods, is_let_go, signal.SIGSTOP) as interrupted:
            pod = pods.run(restoring(HOG, kept.image, annotations=LAZY))
        if interrupted.container_id:
            return pod
        pods.remove(pod)  # a busy machine was late
    raise AssertionError("each time all memory was there before the daemon was stopped")


def test_a_daemon_that_dies_later_costs_the_container_its_life_at_once(
    deployed: Deployment, pods2: Pods, fetched: Kept
) -> None:
    pod = held_up(pods2, fetched)
    assert outcome(deployed, pod)["mode"] == "lazy"
    process = host_pid(pods2, pod)
    [daemon] = of_transfer(pod.container_id, "lazy-pages")
    os.kill(daemon, signal.SIGKILL)
    began = time.monotonic()
    wait_for(lambda: not is_alive(process))
    assert time.monotonic() - began < 3  # a fraction of a second, unless the machine is busy
    # "ended": in the moment that it takes, it read zeros and crashed
    assert result(pod)["outcome"] in ("killed", "ended")
    lost = wait_for(
        lambda: [
            one
            for one in deployed.agents[2].restores()
            if one["container_id"] == pod.container_id and one["code"] == "lazy_lost"
        ]
    )
    assert "would have read as zeros" in lost[0]["reason"]
    wait_for(lambda: not pods2.is_running(pod))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_an_agent_that_is_killed_costs_nothing(
    deployed: Deployment, pods2: Pods, fetched: Kept
) -> None:
    pod = held_up(pods2, fetched)
    outcome(deployed, pod)
    deployed.agents[2].kill()
    [daemon] = of_transfer(pod.container_id, "lazy-pages")
    os.kill(daemon, signal.SIGCONT)
    assert checksum(pods2, pod) == fetched.checksum
    assert result(pod)["outcome"] == "complete"
    deployed.agents[2].start()
    deployed.wait_connected(2)
    wait_for(lambda: not (work(pod) / "lazy.json").exists())
    assert pods2.is_running(pod)


def test_without_agent_and_supervisor_the_next_agent_watches(
    deployed: Deployment, pods2: Pods, fetched: Kept
) -> None:
    pod = held_up(pods2, fetched)
    outcome(deployed, pod)
    process = host_pid(pods2, pod)
    deployed.agents[2].kill()
    [daemon] = of_transfer(pod.container_id, "lazy-pages")
    [supervisor] = of_transfer(work(pod).name, "run")
    os.kill(supervisor, signal.SIGKILL)
    deployed.agents[2].start()
    deployed.wait_connected(2)
    assert is_alive(process)  # the daemon still lives, and so may the container
    os.kill(daemon, signal.SIGKILL)
    wait_for(lambda: not is_alive(process))
    said_so = result(pod)  # "ended": it read zeros and crashed before it was killed
    assert said_so["outcome"] in ("killed", "ended")
    assert said_so["died"] == "1"
    wait_for(lambda: "lazy_lost" in codes(deployed, pod))


def test_a_pod_that_is_deleted_meanwhile_is_no_loss(
    deployed: Deployment, pods2: Pods, fetched: Kept
) -> None:
    pod = held_up(pods2, fetched)
    outcome(deployed, pod)
    [daemon] = of_transfer(pod.container_id, "lazy-pages")
    removing = threading.Thread(target=pods2.remove, args=(pod,))
    removing.start()
    wait_for(lambda: not of_container(pod))
    os.kill(daemon, signal.SIGCONT)
    removing.join()
    ended = result(pod)
    assert ended["outcome"] in ("ended", "complete"), ended
    wait_for(lambda: not (work(pod) / "lazy.json").exists())
    assert codes(deployed, pod) == [""], ended


def of_container(pod: Pod) -> list[int]:
    return processes(lambda folder: pod.container_id in (folder / "cgroup").read_text())


def codes(deployed: Deployment, pod: Pod) -> list[str]:
    """The codes of all that is on record about the container."""
    records = deployed.agents[2].restores()
    return [one["code"] for one in records if one["container_id"] == pod.container_id]


def test_a_container_is_not_dumped_while_its_memory_arrives(
    deployed: Deployment, pods2: Pods, fetched: Kept
) -> None:
    pod = held_up(pods2, fetched)
    outcome(deployed, pod)
    with pytest.raises(Refusal, match="still arriving"):
        save(deployed, pod, "too-early")
    [daemon] = of_transfer(pod.container_id, "lazy-pages")
    os.kill(daemon, signal.SIGCONT)
    assert result(pod)["outcome"] == "complete"
    save(deployed, pod, "in-time")
