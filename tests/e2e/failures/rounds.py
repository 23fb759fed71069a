"""One round for all tests of failures: every pod starts, every one is checkpointed, every checkpoint restored."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from deploy.devcluster.cluster import KubectlFailed
from deploy.devcluster.operating import Operated
from deploy.devnode import processes
from deploy.devnode.world import CLUSTER
from tests.e2e.failures import pods
from tests.e2e.failures.pods import Manifest, Restored

STARTED_S: Final = 300.0
CHECKPOINT_S: Final = 240.0
TOLD_S: Final = 180.0
AT_ONCE: Final = 4
RESTORED_AT_ONCE: Final = 6  # a small machine has a lot to do for each, within the time that it has
CONFIG: Final = {"apiVersion": "v1", "kind": "ConfigMap"}
RUNC_ROOT: Final = "/run/containerd/runc/k8s.io"
HOST_FILE: Final = "/srv/failures/file"


@dataclass
class Round:
    """What came of everything.

    Attributes:
        answers: status and body of each original's checkpoint-and-push, by its name.
    """

    operated: Operated
    answers: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)

    def run(self) -> None:
        """Start, checkpoint and restore everything; what fails is for its own test to say."""
        cluster = self.operated.cluster
        for name in (pods.NAMESPACE, pods.ELSEWHERE):
            cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
            self.wait(partial(cluster.exists, "serviceaccount", "default", name), name)
        self.color("red")
        for number in (1, 2):
            file = cluster.node(number).host_path(HOST_FILE)
            file.parent.mkdir(exist_ok=True)
            file.write_text("the node's\n")
        made = {one.name: one.manifest(cluster.world.base.host) for one in pods.ORIGINALS}
        self.apply(made.values())
        wanted = {one.name for one in pods.ORIGINALS if one.is_ready}
        self.wait(lambda: wanted <= self.talking("node1"), "the originals")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            self.answers = dict(pool.map(self._checkpoint, made))
        self.color("blue")
        asked = [one for one in pods.RESTORED if self.images(one.of)]
        for at in range(0, len(asked), RESTORED_AT_ONCE):
            few = asked[at : at + RESTORED_AT_ONCE]
            self.apply(one.manifest(made[one.of], self.images(one.of)) for one in few)
            with contextlib.suppress(processes.NotReady):
                self.wait(partial(self._are_told, few), "news of some pods", TOLD_S)

    def _are_told(self, restored: Iterable[Restored]) -> bool:
        return all(self._outcomes(one.name, "app") for one in restored)

    def end(self) -> None:
        """Take everything away again."""
        for name in (pods.NAMESPACE, pods.ELSEWHERE):
            self.operated.cluster.delete("namespace", name)

    def restore(self, one: Restored) -> None:
        """Start one more pod from a checkpoint."""
        original = next(made for made in pods.ORIGINALS if made.name == one.of)
        manifest = original.manifest(self.operated.cluster.world.base.host)
        self.apply([one.manifest(manifest, self.images(one.of))])

    def delete(self, pod: str) -> None:
        """Take one pod away."""
        self.operated.cluster.delete("pod", pod, pods.NAMESPACE)

    def wait(self, ready: Callable[[], object], what: str, timeout_s: float = STARTED_S) -> None:
        """Wait for something; what the cluster runs is told if it does not happen.

        Raises:
            processes.NotReady: it did not, in time.
        """
        self.operated.cluster.wait(
            lambda: bool(ready()),
            what,
            timeout_s,
            lambda: self.operated.cluster.kubectl("get", "pods", "-A", "-owide"),
        )

    def color(self, name: str) -> None:
        """What the ConfigMap says."""
        metadata = {"name": "color", "namespace": pods.NAMESPACE}
        self.operated.cluster.apply({**CONFIG, "metadata": metadata, "data": {"color": name}})

    def apply(self, manifests: Iterable[Manifest]) -> None:
        """Apply them all at once."""
        self.operated.cluster.apply({"apiVersion": "v1", "kind": "List", "items": list(manifests)})

    def pods(self, namespace: str = pods.NAMESPACE) -> dict[str, Manifest]:
        """The pods there are, by name."""
        text = self.operated.cluster.kubectl("get", "pods", "-n", namespace, "-ojson")
        return {one["metadata"]["name"]: one for one in json.loads(text)["items"]}

    def talking(self, node: str) -> set[str]:
        """The pods of a node whose every container runs and has said something."""
        return {
            name
            for name, one in self.pods().items()
            if one["spec"]["nodeName"] == node
            and (told := one["status"].get("containerStatuses"))
            and all("running" in status["state"] for status in told)
            and all(self.log(name, status["name"]) for status in told)
        }

    def _checkpoint(self, name: str) -> tuple[str, tuple[int, dict[str, Any]]]:
        status, answer = self.checkpoint(name, "checkpoint-and-push")
        if status == 200:
            for one in answer["checkpoints"]:
                self._bring(one["checkpoint_id"])
        return name, (status, answer)

    def _bring(self, checkpoint: str) -> None:
        """Have an image on node 2: a pod does not wait long for it, and then starts cold."""
        path, nodes = f"/checkpoint/{checkpoint}/prefetch", {"nodes": ["node2"]}

        def is_there() -> bool:
            status, _ = self.operated.rest.call("POST", path, nodes, timeout_s=CHECKPOINT_S)
            return status == 200

        self.wait(is_there, "an image on node 2", CHECKPOINT_S)

    def checkpoint(self, name: str, how: str = "checkpoint", **asked: Any) -> tuple[int, Any]:
        """Checkpoint all containers of a pod."""
        body = {"pod_name": name, "namespace": pods.NAMESPACE, "cluster_name": CLUSTER}
        return self.operated.rest.call(
            "POST",
            f"/checkpoint/kubelet/{how}",
            {**body, "container_name": "*", **asked},
            timeout_s=CHECKPOINT_S,
        )

    def images(self, name: str) -> dict[str, str]:
        """The checkpoint images of a pod by container; none if it was not checkpointed."""
        _, answer = self.answers[name]
        return {
            one["container_name"]: f"{one['image'].rpartition(':')[0]}@{one['image_digest']}"
            for one in answer.get("checkpoints", ())
            if one.get("image_digest")
        }

    def outcome(self, pod: str, container: str = "app") -> dict[str, Any]:
        """What node 2 says became of the first start of a container.

        Raises:
            processes.NotReady: it says nothing.
        """
        self.wait(lambda: self._outcomes(pod, container), f"news of {pod}", TOLD_S)
        return self._outcomes(pod, container)[0]

    def codes(self, pod: str) -> list[str]:
        """The codes of all that node 2 says became of a pod's container."""
        return [one["code"] for one in self._outcomes(pod, "app")]

    def _outcomes(self, pod: str, container: str) -> list[dict[str, Any]]:
        told = self.operated.agents[2].restores()
        return [one for one in told if (one["pod_name"], one["container_name"]) == (pod, container)]

    def log(self, pod: str, container: str = "app") -> list[str]:
        """What a container has said; nothing while there is none yet."""
        asked = ("logs", "-n", pods.NAMESPACE, pod, "-c", container)
        try:
            return self.operated.cluster.kubectl(*asked).splitlines()
        except KubectlFailed:
            return []

    def says(self, pod: str, container: str = "app") -> list[dict[str, Any]]:
        """What a program has said it holds, each time."""
        lines = (line for line in self.log(pod, container) if line.startswith("{"))
        return [json.loads(line) for line in lines]

    def wait_says(self, pod: str, count: int = 2, container: str = "app") -> list[dict[str, Any]]:
        """What it has said, once that is so much."""
        return self._wait_many(lambda: self.says(pod, container), count, f"{pod} to say it")

    def wait_counted(self, pod: str, container: str = "app", count: int = 2) -> list[int]:
        """The numbers that a program has counted, once there are so many."""

        def counted() -> list[int]:
            lines = self.log(pod, container)
            ticks = [int(line.split()[1]) for line in lines if line.startswith("tick ")]
            return ticks or [line["n"] for line in self.says(pod, container)]

        return self._wait_many(counted, count, f"{pod} to count")

    def _wait_many(self, asked: Callable[[], list[Any]], count: int, what: str) -> list[Any]:
        found: list[Any] = []

        def are_enough() -> bool:
            found[:] = asked()
            return len(found) >= count

        self.wait(are_enough, what, TOLD_S)
        return found

    def exec(self, pod: str, *words: str) -> str:
        """What a program prints in a pod's container, once that runs."""
        self.wait(lambda: "running" in self.status(pod)["state"], f"{pod} to run", TOLD_S)
        return self.operated.cluster.kubectl("exec", "-n", pods.NAMESPACE, pod, "--", *words)

    def status(self, pod: str, container: str = "app") -> dict[str, Any]:
        """The kubelet's word on a container; without a state before it has one."""
        listed = self.pods()[pod]["status"].get("containerStatuses", ())
        unknown: dict[str, Any] = {"state": {}, "restartCount": 0}
        return next((one for one in listed if one["name"] == container), unknown)

    def container_id(self, pod: str) -> str:
        """As its runtime knows it."""
        return str(self.status(pod)["containerID"]).rpartition("/")[2]

    def pid(self, pod: str) -> int:
        """The first process of an original's container, as its node numbers it."""
        state = ["runc", "--root", RUNC_ROOT, "state", self.container_id(pod)]
        return int(json.loads(self.operated.cluster.node(1).run(state).stdout)["pid"])

    def wait_event(self, pod: str, reason: str, words: str) -> None:
        """Wait for an event on a pod, as ``kubectl get events`` shows them."""
        self.wait(
            lambda: any(
                one.startswith(f"{reason}: ") and words in one for one in self._events(pod)
            ),
            f"{reason} of {pod} with {words!r}",
            TOLD_S,
        )

    def _events(self, pod: str) -> list[str]:
        about = f"involvedObject.kind=Pod,involvedObject.name={pod}"
        asked = ("get", "events", "-A", "--field-selector", about, "-ojson")
        found = json.loads(self.operated.cluster.kubectl(*asked))["items"]
        return [f"{one['reason']}: {one['message']}" for one in found]
