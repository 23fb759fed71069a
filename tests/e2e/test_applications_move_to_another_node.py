"""Six real applications are checkpointed on one node and go on in a pod of the other one, there and back.

Node 1 has containerd 2.1.9, node 2 containerd 2.4.2.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from agent.formats import layout
from deploy.devcluster import applications as images
from deploy.devcluster import lifecycle
from deploy.devcluster.cluster import Cluster
from deploy.devnode.instance import Instance
from deploy.devnode.world import CLUSTER, REGISTRY, Deployment
from tests.e2e import applications
from tests.e2e.applications import Application

pytestmark = pytest.mark.cluster
NAMESPACE = "apps"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster of these tests' own, for its second runtime."""
    with lifecycle.opened(Instance("mixed"), print, {2: "containerd-2.4.2"}) as made:
        yield made


@pytest.fixture(scope="module")
def deployed(cluster: Cluster) -> Iterator[Deployment]:
    """A control plane on this machine and an agent in each node, connected, and the RuntimeClass ``snap``."""
    kind = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass"}
    cluster.apply({**kind, "metadata": {"name": "snap"}, "handler": "snap"})
    made = cluster.world.deploy()
    made.wait_connected()
    yield made
    cluster.world.stop_services()


@pytest.fixture(scope="module")
def image(cluster: Cluster) -> Iterator[str]:
    """The applications' image, and where their pods live."""
    name = images.publish(cluster.world.base, print)
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    yield name
    cluster.delete("namespace", NAMESPACE)


class Apps:
    """One application's pods."""

    def __init__(self, cluster: Cluster, deployed: Deployment, app: Application, image: str):
        self.cluster, self.deployed, self.app, self.image = cluster, deployed, app, image

    def run(self, name: str, node: str, checkpoint: str = "") -> str:
        """Start a pod, from ``checkpoint`` if it is given, wait until it is Ready; its address."""
        asked = {layout.ANNOTATION_CHECKPOINT: json.dumps({"app": checkpoint})}
        made = applications.pod(self.app, name, self.image, node, asked if checkpoint else {})
        self.cluster.apply(made)
        ready = self.cluster.wait_pod(name, NAMESPACE, timeout_s=120)
        return str(ready["status"]["podIP"])

    def exec(self, name: str, *words: str) -> str:
        return self.cluster.kubectl("exec", "-n", NAMESPACE, name, "--", *words)

    def ask(self, name: str, address: str) -> str:
        return self.app.ask(address, lambda *words: self.exec(name, *words))

    def rounds(self, name: str) -> list[int]:
        lines = self.cluster.kubectl("logs", "-n", NAMESPACE, name).splitlines()
        return [int(line.split()[1]) for line in lines if line.startswith("round ")]

    def save(self, name: str, node: str) -> str:
        """Checkpoint the pod's container and push it; the image by digest."""
        answer = self.deployed.rest.post(
            f"/checkpoint/kubelet/checkpoint-and-push?pod_name={name}&node_name={node}"
            "&container_name=app",
            {
                "namespace": NAMESPACE,
                "cluster": CLUSTER,
                "registry": REGISTRY,
                "image_name": f"e2e-{name}",
                "tag": "latest",
            },
        )
        return f"{answer['image'].rpartition(':')[0]}@{answer['image_digest']}"

    def outcome(self, name: str) -> dict[str, Any]:
        """What the agent says became of the pod's container."""
        status = self.status(name)
        found = status["containerID"].rpartition("/")[2]
        node = self.cluster.get("pod", name, NAMESPACE)["spec"]["nodeName"]
        agent = self.deployed.agents[int(node[-1])]
        return next(one for one in agent.restores() if one["container_id"] == found)

    def status(self, name: str) -> dict[str, Any]:
        (one,) = self.cluster.get("pod", name, NAMESPACE)["status"]["containerStatuses"]
        return dict(one)


@pytest.fixture(params=applications.ALL, ids=lambda app: app.name)
def apps(
    request: pytest.FixtureRequest, cluster: Cluster, deployed: Deployment, image: str
) -> Iterator[Apps]:
    app: Application = request.param
    if app.files:
        kind = {"apiVersion": "v1", "kind": "ConfigMap"}
        metadata = {"name": app.name, "namespace": NAMESPACE}
        cluster.apply({**kind, "metadata": metadata, "data": dict(app.files)})
    yield Apps(cluster, deployed, app, image)
    cluster.kubectl("delete", "pods", "--all", "-n", NAMESPACE, "--grace-period=1")


def test_an_application_goes_there_and_back(apps: Apps) -> None:
    name = apps.app.name
    names = (name, f"{name}-there", f"{name}-back")
    address = apps.run(names[0], "node1")
    apps.app.state(lambda *words: apps.exec(names[0], *words))
    before = apps.ask(names[0], address)
    moves = ((names[0], names[1], "node2"), (names[1], names[2], "node1"))
    for source, target, node in moves[: apps.app.moves]:
        last = apps.rounds(source)[-1:]
        checkpoint = apps.save(source, "node1" if node == "node2" else "node2")
        assert apps.ask(source, address) == before  # the original goes on
        address = apps.run(target, node, checkpoint)
        said = apps.outcome(target)
        assert said["action"] == "restored", json.dumps(said)
        assert apps.ask(target, address) == before
        if apps.app.rounds:
            apps.cluster.wait(lambda: len(apps.rounds(target)) > 2, "its log to go on")  # noqa: B023
            assert apps.rounds(target)[0] >= last[0]
        assert apps.status(target)["restartCount"] == 0
        apps.cluster.delete("pod", source, NAMESPACE)
    assert apps.cluster.is_pod_ready(names[apps.app.moves], NAMESPACE)
