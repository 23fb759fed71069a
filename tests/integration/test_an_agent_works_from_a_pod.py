"""The agent in a privileged container of its node, as the DaemonSet runs it: everything that it does on the node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from deploy.devnode.node import ENVIRONMENT, Node
from deploy.devnode.pods import Mount, Pod, Pods, PodSpec
from deploy.devnode.services import FREE_PERCENT
from deploy.devnode.world import CLUSTER, Deployment
from snap_protos.runtime.v1 import api_pb2 as cri
from tests.integration.restoring import COUNTING, numbers, outcome, restoring, save, wait_for

pytestmark = pytest.mark.node

_NODE = cri.NamespaceOption(network=cri.NODE, pid=cri.NODE, ipc=cri.POD)
_READ_ONLY = ("/usr", "/etc/ssl", "/opt/snap/src", "/opt/snap/site")


@dataclass
class AgentPod:
    """The agent of node 2 as a pod: it has the node's / at /host and nothing of it elsewhere but its own programs."""

    deployed: Deployment
    node: Node
    pods: Pods
    running: list[Pod] = field(default_factory=list)

    def start(self, **settings: str) -> Pod:
        """Start it and wait until it has joined."""
        place = f"/etc/snap/{self.deployed.control_plane.data.name}"
        env: Mapping[str, str] = {
            **ENVIRONMENT,
            "PYTHONPATH": "/image/src:/image/site",
            "SNAP_HOST_ROOT": "/host",
            "SNAP_CONTROL_PLANE": self.deployed.control_plane.grpc_address,
            "SNAP_CLUSTER_NAME": CLUSTER,
            "SNAP_NODE_NAME": self.node.name,
            "SNAP_AGENT_TOKEN_FILE": "/secret/token",
            "SNAP_CA_FILE": "/secret/ca.crt",
            "SNAP_DISK_FREE_PERCENT": FREE_PERCENT,
            **settings,
        }
        mounts = [
            Mount(one, one.replace("/opt/snap", "/image"), readonly=True) for one in _READ_ONLY
        ]
        security = cri.LinuxContainerSecurityContext(privileged=True, namespace_options=_NODE)
        sandbox = cri.LinuxSandboxSecurityContext(privileged=True, namespace_options=_NODE)
        spec = PodSpec(
            name="snap-agent",
            image="counter",
            namespace="snap-system",
            command=("/usr/bin/python3", "-m", "agent"),
            env=env,
            mounts=(Mount("/", "/host", follows=True), Mount(place, "/secret", True), *mounts),
            linux=cri.LinuxContainerConfig(security_context=security),
            sandbox_linux=cri.LinuxPodSandboxConfig(security_context=sandbox),
        )
        pod = self.pods.run(spec)
        self.running.append(pod)
        try:
            wait_for(lambda: any("joined" in line for line in pod.raw_lines()), within_s=120)
        except AssertionError as late:
            raise AssertionError("\n".join(pod.raw_lines()[-30:])) from late
        return pod

    def status(self) -> dict[str, Any]:
        """What the control plane says of the node."""
        nodes = self.deployed.rest.get(f"/cluster/status/{CLUSTER}")["nodes"]
        return next(
            (one for one in nodes if self.node.name in (one.get("node_name"), one.get("name"))), {}
        )

    def kill(self) -> None:
        """Remove it with everything in its cgroup, as the kubelet does."""
        self.pods.remove(self.running.pop())


@pytest.fixture
def in_pod(deployed: Deployment, node2: Node, pods2: Pods) -> Iterator[AgentPod]:
    """In place of node 2's agent, which is there again afterwards."""
    mine = deployed.agents[2]
    mine.stop()
    made = AgentPod(deployed, node2, pods2)
    try:
        yield made
    finally:
        while made.running:
            pods2.remove(made.running.pop())
        mine.start()
        deployed.wait_connected()


def test_it_checkpoints_pushes_and_restores(in_pod: AgentPod, pods2: Pods) -> None:
    in_pod.start()
    pod = pods2.run(COUNTING)
    wait_for(lambda: len(numbers(pod)) > 5)
    saved = save(in_pod.deployed, pod, "from-a-pod")
    before = numbers(pod)[-1]
    wait_for(lambda: numbers(pod)[-1] > before)
    restored = pods2.run(restoring(COUNTING, saved.image))
    told = outcome(in_pod.deployed, restored)
    assert (told["action"], told["reason"]) == ("restored", "")
    wait_for(lambda: numbers(restored))
    assert 1 < numbers(restored)[0] <= saved.last + 1


def test_a_dump_outlives_its_pod_and_the_next_one_takes_it_over(
    in_pod: AgentPod, pods2: Pods
) -> None:
    in_pod.start()
    pod = pods2.run(PodSpec(name="big", image="hog", env={"HOG_MIB": "600"}))
    wait_for(lambda: any(line.startswith("ready") for line in pod.lines()), within_s=120)
    rest = in_pod.deployed.rest
    asked = rest.post(
        "/checkpoint/kubelet/checkpoint?wait=false",
        {"pod_name": "big", "namespace": "default", "cluster_name": CLUSTER, "node_name": "node2"},
    )
    dump = wait_for(lambda: _oldest(in_pod.node, "snap-dump"))
    group = in_pod.node.run(["cat", f"/proc/{dump}/cgroup"], check=False).stdout
    assert not group or "/snap-agent" in group
    in_pod.kill()
    in_pod.start()
    job = wait_for(lambda: _ended(rest.get(f"/jobs/{asked['job_id']}")), within_s=120)
    assert job["status"] == "completed", job
    last = len(pod.lines())
    wait_for(lambda: len(pod.lines()) > last)


def _oldest(node: Node, name: str) -> str:
    """The number of the oldest process of this name; empty: there is none."""
    return str(node.run(["pgrep", "-o", "-x", name], check=False).stdout.strip())


def _ended(job: dict[str, object]) -> dict[str, object] | None:
    return job if job["status"] in ("completed", "failed", "cancelled") else None


def test_it_prepares_its_node(in_pod: AgentPod, node2: Node, pods2: Pods) -> None:
    node2.make_bare()
    try:
        living = pods2.run(replace(COUNTING, name="living"))
        in_pod.start(SNAP_PREPARE="auto", SNAP_RUNTIME_RESTART="pkill -x containerd")
        ready = ["runtime", "image"]
        wait_for(lambda: in_pod.status().get("restore_drivers") == ready, within_s=180)
        before = len(numbers(living))
        wait_for(lambda: len(numbers(living)) > before)
        rest = in_pod.deployed.rest
        user = pods2.run(replace(COUNTING, name="user", handler="snap"))
        status, refused = rest.call(
            "POST", f"/cluster/{CLUSTER}/nodes/node2/prepare", {"undo": True}
        )
        assert status >= 400
        assert "default/user" in refused["error"]
        pods2.remove(user)
        rest.post(f"/cluster/{CLUSTER}/nodes/node2/prepare", {"undo": True})
        assert not node2.host_path("/opt/snap/bin/snap-runc").exists()
        assert "imports" not in Path(node2.host_path("/etc/containerd/config.toml")).read_text()
    finally:
        pods2.remove_all()
        in_pod.running.clear()
        node2.equip()
