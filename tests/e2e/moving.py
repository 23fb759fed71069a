"""One application's pods on a cluster: started, asked, saved, and started again from what was saved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from agent.formats import layout
from deploy.devcluster.cluster import DELETE_S, Cluster
from deploy.devcluster.operating import Operated
from deploy.devnode.world import CLUSTER, REGISTRY
from tests.e2e import applications
from tests.e2e.applications import Application

NAMESPACE: Final = "apps"
READY_S: Final = 240.0
WAY: Final = (("node1", "node2"), ("node2", "node1"))  # there and back


def namespace(cluster: Cluster) -> None:
    """Where the applications' pods live."""
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})


def remove_pods(cluster: Cluster) -> None:
    """Remove them all."""
    words = ("--all", "-n", NAMESPACE, "--grace-period=1", f"--timeout={DELETE_S:.0f}s")
    cluster.kubectl("delete", "pods", *words, timeout_s=DELETE_S + 20)


@contextmanager
def pulling(cluster: Cluster, namespace: str) -> Iterator[None]:
    """Pods of ``namespace`` may pull checkpoint images for the block; the runtime itself has no password."""
    registry = cluster.world.checkpoints
    who = (f"--docker-username={registry.user}", f"--docker-password={registry.password}")
    where = f"--docker-server={registry.host}"
    made = ("create", "secret", "docker-registry", "checkpoints", "-n", namespace)
    cluster.kubectl(*made, where, *who)
    patch = ("patch", "serviceaccount", "default", "-n", namespace, "-p")
    cluster.kubectl(*patch, json.dumps({"imagePullSecrets": [{"name": "checkpoints"}]}))
    try:
        yield
    finally:
        cluster.kubectl(*patch, json.dumps({"imagePullSecrets": None}))
        cluster.delete("secret", "checkpoints", namespace)


def wait_address(cluster: Cluster, name: str) -> str:
    """Wait until a pod is Ready; its address."""
    ready = cluster.wait_pod(name, NAMESPACE, timeout_s=READY_S)
    return str(ready["status"]["podIP"])


def run_in(cluster: Cluster, name: str, *words: str) -> str:
    """What ``words`` print in a pod's container."""
    return cluster.kubectl("exec", "-n", NAMESPACE, name, "--", *words)


class Apps:
    """One application's pods."""

    def __init__(self, cluster: Cluster, deployed: Operated, app: Application, image: str):
        self.cluster, self.deployed, self.app, self.image = cluster, deployed, app, image

    def run(self, name: str, node: str, checkpoint: str = "", **container: object) -> str:
        """Start a pod, from ``checkpoint`` if it is given, wait until it is Ready; its address.

        ``container`` stands in its manifest instead of what is usual there.
        """
        asked = {layout.ANNOTATION_CHECKPOINT: json.dumps({"app": checkpoint})}
        made = applications.pod(self.app, name, self.image, node, asked if checkpoint else {})
        made["spec"]["containers"][0] |= container
        self.cluster.apply(made)
        return wait_address(self.cluster, name)

    def exec(self, name: str, *words: str) -> str:
        return run_in(self.cluster, name, *words)

    def ask(self, name: str, address: str) -> str:
        return self.app.ask(address, lambda *words: self.exec(name, *words))

    def rounds(self, name: str) -> list[int]:
        lines = self.cluster.kubectl("logs", "-n", NAMESPACE, name).splitlines()
        return [int(line.split()[1]) for line in lines if line.startswith("round ")]

    def save(self, name: str, node: str, **asked: object) -> str:
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
                **asked,
            },
        )
        return f"{answer['image'].rpartition(':')[0]}@{answer['image_digest']}"

    def crash(self, name: str) -> None:
        """Kill the first process of a pod that asked for a restore, and wait until the kubelet started it again."""
        status, said = self.status(name), self.outcome(name)
        node = self.cluster.get("pod", name, NAMESPACE)["spec"]["nodeName"]
        self.cluster.node(int(node[-1])).run(["kill", "-KILL", str(said["pid"])])
        self.cluster.wait(
            lambda: (
                self.status(name)["restartCount"] == status["restartCount"] + 1
                and self.cluster.is_pod_ready(name, NAMESPACE)
            ),
            f"the restart of {name}",
            timeout_s=READY_S,
            told=lambda: self.cluster.kubectl("describe", "pod", name, "-n", NAMESPACE),
        )

    def there_and_back(self) -> str:
        """Have the application go from node 1 to node 2 and back, its state with it; the last pod's name."""
        name = self.app.name
        address = self.run(name, "node1")
        self.app.state(lambda *words: self.exec(name, *words))
        before = self.ask(name, address)
        for (old, node), target in zip(WAY, (f"{name}-there", f"{name}-back"), strict=True):
            last = self.rounds(name)[-1:]
            checkpoint = self.save(name, old)
            assert self.ask(name, address) == before  # the original goes on
            address = self.run(target, node, checkpoint)
            said = self.outcome(target)
            assert said["action"] == "restored", json.dumps(said)
            assert self.ask(target, address) == before
            if self.app.rounds:
                self.cluster.wait(partial(self._has_gone_on, target), "its log to go on")
                assert self.rounds(target)[0] >= last[0]
            assert self.status(target)["restartCount"] == 0
            self.cluster.delete("pod", name, NAMESPACE)
            name = target
        return name

    def refused_driver_image(self, name: str, node: str) -> str:
        """See that a pod's checkpoint is not restored on ``node`` by its container runtime; the path of restores."""
        rest = self.deployed.rest
        asked = {"namespace": NAMESPACE, "cluster": CLUSTER, "registry": REGISTRY}
        saved = rest.post(f"/checkpoint/kubelet/checkpoint-and-push?pod_name={name}", asked)
        path = f"/checkpoint/{saved['checkpoint_id']}/restore"
        wanted = {"node_name": node, "pod_name": "there", "driver": "image"}
        status, told = rest.call("POST", path, wanted)
        assert (status, told["code"]) == (409, "CONFLICT"), told
        assert f"container runtime of node {node} restores no images itself" in told["error"]
        assert "use driver runtime" in told["error"]
        assert not self.cluster.exists("pod", "there", NAMESPACE)
        return path

    def _has_gone_on(self, name: str) -> bool:
        return len(self.rounds(name)) > 2

    def outcome(self, name: str) -> dict[str, Any]:
        """What the agent says became of the pod's container, once it does."""
        status = self.status(name)
        container = status["containerID"].rpartition("/")[2]
        node = self.cluster.get("pod", name, NAMESPACE)["spec"]["nodeName"]
        agent = self.deployed.agents[int(node[-1])]
        found: list[dict[str, Any]] = []

        def is_told() -> bool:
            found[:] = [one for one in agent.restores() if one["container_id"] == container]
            return bool(found)

        self.cluster.wait(is_told, f"news of {name}")
        return found[0]

    def status(self, name: str) -> dict[str, Any]:
        (one,) = self.cluster.get("pod", name, NAMESPACE)["status"]["containerStatuses"]
        return dict(one)
