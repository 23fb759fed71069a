"""An eager restore whose memory the agent brings: every page is there before anything runs, or it starts cold."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.formats import layout
from deploy.devnode.pods import Pods, PodSpec
from deploy.devnode.world import Deployment, World
from tests.integration.restoring import outcome, restoring, state_files, wait_for
from tests.integration.test_a_lazy_restore_brings_every_page import (
    TRIES,
    Kept,
    checksum,
    keeping,
    processes,
    said,
    ticks,
)

pytestmark = pytest.mark.node
HOG = PodSpec(name="eagerhog", image="hog", env={"HOG_MIB": "600", "HOG_HZ": "20"})
EAGER = {layout.ANNOTATION_RESTORE_MODE: "eager"}


@pytest.fixture(scope="module")
def kept(world: World, deployed: Deployment) -> Iterator[Kept]:
    with keeping(world.pods(1), deployed, HOG, "eager") as one:
        yield one


def test_every_page_is_there_at_once(deployed: Deployment, pods2: Pods, kept: Kept) -> None:
    pod = pods2.run(restoring(HOG, kept.image, annotations=EAGER))
    told = outcome(deployed, pod)
    assert (told["action"], told["mode"]) == ("restored", "eager"), told
    assert told["pages_restored"] >= 600 << 8  # the agent's are counted
    wait_for(lambda: ticks(pod) > 5)
    assert checksum(pods2, pod) == kept.checksum
    assert state_files(pod) == ["criu.conf"]


def test_an_agent_that_is_killed_meanwhile_means_a_cold_start(
    deployed: Deployment, pods2: Pods, kept: Kept
) -> None:
    for _ in range(TRIES):
        with KilledMeanwhile(deployed) as killed:
            pod = pods2.run(restoring(HOG, kept.image, annotations=EAGER))
        deployed.agents[2].start()
        deployed.wait_connected(2)
        if killed.in_time and outcome(deployed, pod)["action"] == "failed":
            break
        pods2.remove(pod)  # all memory was there before the agent was seen at it
    else:
        raise AssertionError("each time the memory was there before the agent was killed")
    wait_for(lambda: said(pod, "ready"), within_s=90)  # filled anew: it started cold
    assert pods2.is_running(pod)
    assert state_files(pod) == []


class KilledMeanwhile:
    """Kills the agent of node 2 while it brings a process its memory."""

    def __init__(self, deployed: Deployment) -> None:
        self._deployed = deployed
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.in_time = False

    def __enter__(self) -> KilledMeanwhile:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        agents = processes(lambda folder: b"-m\0agent\0" in (folder / "cmdline").read_bytes())
        while not self._over.is_set():
            if any(map(is_filling, agents)):
                self._deployed.agents[2].kill()
                self.in_time = True
                return


def is_filling(pid: int) -> bool:
    """Whether a process holds the memory of another that waits for pages."""
    with contextlib.suppress(OSError):
        return any(
            "userfaultfd" in str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()
        )
    return False
