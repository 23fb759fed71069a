"""Refused, failed, or nobody there to ask: the container starts cold, with the image's own files, and says why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from deploy.devnode.pods import Pod, Pods, PodSpec
from deploy.devnode.world import Deployment, World
from snap_protos.runtime.v1 import api_pb2 as cri
from tests.integration.restoring import (
    COUNTING,
    Saved,
    numbers,
    outcome,
    restoring,
    save,
    state_files,
    wait_for,
)

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def saved(world: World, deployed: Deployment) -> Iterator[Saved]:
    """The counting container, saved on node 1."""
    pods = world.pods(1)
    pod = pods.run(COUNTING)
    wait_for(lambda: len(numbers(pod)) > 3)
    yield save(deployed, pod, "cold")
    pods.remove(pod)


def started_cold(pod: Pod) -> None:
    """It counts from one, and found its image's own files and its pod's name when it began."""
    wait_for(lambda: len(numbers(pod)) > 2)
    assert numbers(pod)[:3] == [1, 2, 3]
    # runc's own word on a restore that failed comes by another stream: anywhere among the lines
    said = [line.strip() for line in pod.lines() if "criu failed" not in line]
    before = [line for line in said if not line.startswith("n ")]
    assert before[-4:] == ["ID=devnode", "NAME=devnode", "counter.sh", pod.spec.name]
    assert state_files(pod) == []


def with_context(**fields: Any) -> cri.LinuxContainerConfig:
    return cri.LinuxContainerConfig(
        security_context=cri.LinuxContainerSecurityContext(
            namespace_options=cri.NamespaceOption(pid=cri.CONTAINER), **fields
        )
    )


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        pytest.param({"namespace": "bank"}, "no_grant", "namespace bank", id="another namespace"),
        pytest.param({"env": {"MODE": "new"}}, "differs", "MODE", id="another environment"),
        pytest.param(
            {"linux": with_context(no_new_privs=True)},
            "privileges",
            "privileges",
            id="no new privileges",
        ),
        pytest.param(
            {"linux": with_context(capabilities=cri.Capability(drop_capabilities=["ALL"]))},
            "privileges",
            "CAP_CHOWN",
            id="fewer capabilities",
        ),
        pytest.param(
            {"linux": with_context(readonly_rootfs=True)},
            "differs",
            "read-only",
            id="read-only root",
        ),
    ],
)
def test_what_the_pod_does_not_allow(
    deployed: Deployment,
    pods2: Pods,
    saved: Saved,
    changes: dict[str, Any],
    code: str,
    reason: str,
) -> None:
    pod = pods2.run(restoring(COUNTING, saved.image, **changes))
    said = outcome(deployed, pod)
    assert (said["action"], said["code"]) == ("cold", code)
    assert reason in said["reason"]
    if "root" not in reason and "read-only" not in reason:
        started_cold(pod)


def test_a_digest_that_nobody_granted(deployed: Deployment, pods2: Pods, saved: Saved) -> None:
    other = saved.image.replace(saved.digest_hex, "0" * 64)
    pod = pods2.run(restoring(COUNTING, other))
    assert outcome(deployed, pod)["code"] == "no_grant"
    started_cold(pod)


def test_a_tag_is_not_enough(deployed: Deployment, pods2: Pods, saved: Saved) -> None:
    tagged = saved.image.rpartition("@")[0] + ":latest"
    assert outcome(deployed, pods2.run(restoring(COUNTING, tagged)))["code"] == "malformed"


def test_a_restart(deployed: Deployment, pods2: Pods, saved: Saved) -> None:
    first = pods2.run(restoring(COUNTING, saved.image))
    assert outcome(deployed, first)["action"] == "restored"
    second = pods2.restart(first)
    assert outcome(deployed, second)["code"] == "restarted"
    wait_for(lambda: numbers(second)[:1] == [1])


def test_images_that_criu_can_not_read(deployed: Deployment, pods2: Pods, saved: Saved) -> None:
    """CRIU fails in the middle: its name for the pod, its files and its configuration are taken back."""
    images = pods2.node.host_path(f"/var/lib/snap/cache/{saved.digest_hex}/checkpoint")
    assert outcome(deployed, pods2.run(restoring(COUNTING, saved.image)))["action"] == "restored"
    pods2.remove_all()
    memory = images / "mm-1.img"  # of the first process: there may be a `sleep` beside it
    whole = memory.read_bytes()
    memory.write_bytes(whole[:-30])
    try:
        pod = pods2.run(restoring(COUNTING, saved.image))
        said = outcome(deployed, pod)
        assert (said["action"], said["code"]) == ("failed", "criu_failed")
        assert "mm-1.img" in said["reason"] + said["details"]
        started_cold(pod)
        bundle = f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/{pod.container_id}"
        assert "org.criu.config" not in pods2.node.host_path(f"{bundle}/config.json").read_text()
    finally:
        memory.write_bytes(whole)


def test_pages_that_are_cut_off(deployed: Deployment, pods2: Pods, saved: Saved) -> None:
    images = pods2.node.host_path(f"/var/lib/snap/cache/{saved.digest_hex}/checkpoint")
    assert outcome(deployed, pods2.run(restoring(COUNTING, saved.image)))["action"] == "restored"
    pages = max(images.rglob("pages-*.img"), key=lambda path: path.stat().st_size)
    whole = pages.read_bytes()
    pages.write_bytes(whole[:-4096])
    try:
        pod = pods2.run(replace(restoring(COUNTING, saved.image), name="cut"))
        assert outcome(deployed, pod)["code"] == "damaged"
        started_cold(pod)
    finally:
        pages.write_bytes(whole)


def test_without_an_agent_it_starts_at_once(
    deployed: Deployment, pods2: Pods, saved: Saved
) -> None:
    deployed.agents[2].kill()
    try:
        pod = pods2.run(restoring(COUNTING, saved.image))
        assert pod.timings_ms["start"] < 10_000  # it did not wait for an answer
        started_cold(pod)
    finally:
        deployed.agents[2].start()
        deployed.wait_connected(2)


def test_an_agent_that_hangs_costs_twenty_seconds(
    deployed: Deployment, pods2: Pods, saved: Saved
) -> None:
    deployed.agents[2].pause()
    try:
        pod = pods2.run(restoring(COUNTING, saved.image))
    finally:
        deployed.agents[2].proceed()
    assert pod.timings_ms["start"] < 35_000  # twenty, and what a busy machine adds
    started_cold(pod)
    time.sleep(0.5)  # the agent that woke up must leave the running container alone
    started_cold(pod)
    deployed.wait_connected(2)


def test_containers_and_sandboxes_without_a_checkpoint_are_left_alone(
    deployed: Deployment, pods2: Pods
) -> None:
    before = len(deployed.agents[2].restores())
    pod = pods2.run(PodSpec(name="plain", image="counter", handler="snap"))
    wait_for(pod.lines)
    assert len(deployed.agents[2].restores()) == before
    assert state_files(pod) == []
