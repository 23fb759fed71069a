"""However large a process is, the agents that save and restore it stay small."""

from __future__ import annotations

import signal

import pytest

from bench import counters
from deploy.devnode.pods import Pod, Pods, PodSpec
from deploy.devnode.world import Deployment
from tests.integration.restoring import outcome, restoring, save, wait_for

pytestmark = pytest.mark.node
LIMIT_MIB = 128.0
MIB = 1024
FILL_S = 90.0
LARGE = PodSpec("large", "hog", env={"HOG_MIB": str(MIB), "HOG_MODE": "half"})


def test_a_process_of_a_gibibyte(deployed: Deployment, pods1: Pods, pods2: Pods) -> None:
    original = pods1.run(LARGE)
    wait_for(lambda: f"ready {MIB}" in original.lines(), within_s=FILL_S)
    noted = checksum(pods1, original)
    saver, restorer = deployed.agents[1], deployed.agents[2]
    with counters.memory_peak(saver.pid, saver.memory_folder) as saving:
        saved = save(deployed, original, "large")
    assert checksum(pods1, original) == noted  # it runs on, whole
    pods1.remove_all()  # this machine may be small too
    (made,) = deployed.rest.get(f"/checkpoint/list?pod_name={LARGE.name}")["checkpoints"]
    with counters.memory_peak(restorer.pid, restorer.memory_folder) as fetching:
        # beforehand, since a slow machine may not fetch so much while the pod waits
        nodes = {"nodes": [restorer.node.name]}
        assert deployed.rest.post(f"/checkpoint/{made['id']}/prefetch", nodes)["success"]
        restored = pods2.run(restoring(LARGE, saved.image))
        assert outcome(deployed, restored)["action"] == "restored"
    assert checksum(pods2, restored) == noted
    assert saving.mib <= LIMIT_MIB
    assert fetching.mib <= LIMIT_MIB


def checksum(pods: Pods, pod: Pod) -> str:
    """Of all memory of the process, made by itself just now."""

    def sums() -> list[str]:
        return [line.split()[1] for line in pod.lines() if line.startswith("sum ")]

    known = len(sums())
    pods.exec(pod, "kill", f"-{signal.SIGUSR1.value}", "1")
    wait_for(lambda: len(sums()) > known, within_s=FILL_S)
    return sums()[-1]
