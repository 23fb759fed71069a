"""The control plane and agents of a real cluster, with a watcher and a hook; workloads that start slowly."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from deploy.devcluster.cluster import Cluster, KubectlFailed
from deploy.devnode import processes
from deploy.devnode.ports import free_port
from deploy.devnode.rest import Rest
from deploy.devnode.services import Agent, ControlPlane
from deploy.devnode.world import CLUSTER, REGISTRY

SNAP: Final = "snap.weaversoft.io/snap"
CHECKPOINT: Final = "snap.weaversoft.io/checkpoint"
NOT_RESTORED: Final = "snap.weaversoft.io/not-restored"
WAIT_S: Final = 240.0  # of a machine that may be busy with much else
# counts as fast as it can: a start that is computed, not slept; then it is ready, and stays so
WARM_UP: Final = """
i=0
while [ $i -lt %d ]; do i=$((i+1)); done
echo > /ready
while :; do echo tick; sleep 1; done
"""


@dataclass(frozen=True, slots=True)
class Operated:
    """A cluster that SNAP works in."""

    cluster: Cluster
    plane: ControlPlane
    rest: Rest
    agents: Mapping[int, Agent]

    def deployment(self, name: str, replicas: int = 1, rounds: int = 600_000, **spec: Any) -> None:
        """A Deployment whose pods compute for ``rounds`` before they are ready."""
        self.cluster.apply(deployment(self.cluster, name, replicas, rounds, **spec))

    def pods(self, name: str) -> list[dict[str, Any]]:
        """The pods of a Deployment that have not ended and are not going away, oldest first."""
        text = self.cluster.kubectl("get", "pods", "-l", f"app={name}", "-ojson")
        found = [
            pod
            for pod in json.loads(text)["items"]
            if "deletionTimestamp" not in pod["metadata"]
            and pod["status"].get("phase") not in {"Failed", "Succeeded"}
        ]
        return sorted(found, key=lambda p: str(p["metadata"]["creationTimestamp"]))

    def wait_ready(self, name: str, count: int, timeout_s: float = WAIT_S) -> list[dict[str, Any]]:
        """Wait until a Deployment has ``count`` pods, all ready; they, as they were seen then."""
        found: list[dict[str, Any]] = []

        def are_ready() -> bool:
            found[:] = self.pods(name)
            return len(found) == count and all(start_s(pod) is not None for pod in found)

        self.wait(are_ready, f"{count} ready pods of {name}", timeout_s, self._described(name))
        return found

    def _described(self, name: str) -> Callable[[], str]:
        return lambda: self.cluster.kubectl("describe", "pods", "-l", f"app={name}")

    def wait_decision(self, watcher: str, decision: str, words: str = "") -> dict[str, Any]:
        """Wait for a decision of a watcher; it."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found[:] = [
                d
                for d in self.decisions(watcher)
                if d["decision"] == decision and words in d["reason"]
            ]
            return bool(found)

        self.wait(
            is_there, f"{decision} by {watcher}", told=lambda: json.dumps(self.decisions(watcher))
        )
        return found[0]

    def events(self, pod: dict[str, Any], reason: str) -> list[str]:
        """What the events of a pod with this reason say."""
        found = self.cluster.kubectl("get", "events.events.k8s.io", "-ojson")
        return [
            str(event["note"])
            for event in json.loads(found)["items"]
            if event["regarding"].get("uid") == pod["metadata"]["uid"] and event["reason"] == reason
        ]

    def wait_event(self, pod: dict[str, Any], reason: str, words: str = "") -> str:
        """Wait for an event of a pod that says ``words``; all that it says."""
        found: list[str] = []

        def is_there() -> bool:
            found[:] = [note for note in self.events(pod, reason) if words in note]
            return bool(found)

        name = pod["metadata"]["name"]
        told = lambda: self.cluster.kubectl("describe", "pod", name)  # noqa: E731
        self.wait(is_there, f"the event {reason} of {name}", told=told)
        return found[0]

    def decisions(self, watcher: str) -> list[dict[str, Any]]:
        """What a watcher decided, newest first."""
        answer = self.rest.get(f"/operator/snapwatcher/{watcher}/decisions")
        found: list[dict[str, Any]] = answer["decisions"]
        return found

    def wait_checkpoint(self, watcher: str, name: str, count: int = 1) -> dict[str, Any]:
        """Wait until a Deployment has ``count`` checkpoints, and its next pod would start from one; the newest.

        A checkpoint is listed a little before admission tells a new pod of it.
        """
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found[:] = self.checkpoints(name)
            return len(found) >= count

        self.wait(is_there, f"a checkpoint of {name}", told=lambda: str(self.decisions(watcher)))
        self.wait_offer(name)
        return found[0]

    def checkpoints(self, name: str) -> list[dict[str, Any]]:
        """The checkpoints of a Deployment's pods, or of one pod, that have an image; newest first."""
        listed = self.rest.get("/checkpoint/list")["checkpoints"]
        return [c for c in listed if f"{c['pod_name']}-".startswith(f"{name}-") and c["image"]]

    def wait_offer(self, name: str) -> None:
        """Wait until the next pod of a Deployment would be given a checkpoint to start from."""
        self.wait_answer(name, lambda pod: CHECKPOINT in notes(pod), "a checkpoint")

    def wait_answer(
        self, name: str, is_wanted: Callable[[dict[str, Any]], bool], what: str
    ) -> dict[str, Any]:
        """Wait until admission makes of the next pod of a Deployment what ``is_wanted``; that pod."""
        made: dict[str, Any] = {}

        def is_made() -> bool:
            made.clear()
            made.update(self.next_pod(name))
            return is_wanted(made)

        told = lambda: json.dumps(made.get("metadata", {}))  # noqa: E731
        self.wait(is_made, f"the next pod of {name} to be given {what}", told=told)
        return made

    def next_pod(self, name: str, without: str = "") -> dict[str, Any]:
        """What admission would make of the next pod of a Deployment; it is not created.

        Args:
            without: an annotation of its template that it is not to have.

        Raises:
            KubectlFailed: it has none yet that tells what the next would be.
        """
        owned = [p for p in self.pods(name) if "ownerReferences" in p["metadata"]]
        if not owned:
            raise KubectlFailed(f"{name} has no pods")
        (owner,) = owned[-1]["metadata"]["ownerReferences"]
        template = self.cluster.get("replicaset", owner["name"])["spec"]["template"]
        template["metadata"] |= {"generateName": f"{owner['name']}-", "ownerReferences": [owner]}
        template["metadata"].get("annotations", {}).pop(without, None)
        return self.pretended(template)

    def pretended(self, template: dict[str, Any]) -> dict[str, Any]:
        """What admission would make of a pod of this template; it is not created."""
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        asked = ("create", "--dry-run=server", "-f", "-", "-ojson")
        made: dict[str, Any] = json.loads(self.cluster.kubectl(*asked, text_in=json.dumps(pod)))
        return made

    def outcomes(self, pod: dict[str, Any]) -> list[dict[str, Any]]:
        """What the nodes say became of a pod's containers, oldest first."""
        uid = pod["metadata"]["uid"]
        told = [one for agent in self.agents.values() for one in agent.restores()]
        return [one for one in told if one["pod_uid"] == uid]

    def wait_restored(self, *pods: dict[str, Any]) -> None:
        """Wait until the nodes say that these pods came from a checkpoint: that is written once they run.

        Raises:
            processes.NotReady: one started cold.
        """
        for pod in pods:
            name = pod["metadata"]["name"]
            if CHECKPOINT in notes(pod):
                self.wait(partial(self._is_told, pod), f"news of {name}")
            if not was_restored(self, pod):
                raise processes.NotReady(f"{name} started cold: {notes(pod)} {self.outcomes(pod)}")

    def _is_told(self, pod: dict[str, Any]) -> bool:
        return bool(self.outcomes(pod))

    def wait(
        self,
        ready: Callable[[], bool],
        what: str,
        timeout_s: float = WAIT_S,
        told: Callable[[], str] = lambda: "",
    ) -> None:
        """Wait until ``ready``; the control plane's log is told if it does not become so."""

        def everything() -> str:
            return f"{told()}\n{self.plane.log.read_text()[-6000:]}"

        self.cluster.wait(ready, what, timeout_s, everything)


def deployment(
    cluster: Cluster, name: str, replicas: int, rounds: int, **spec: Any
) -> dict[str, Any]:
    """A Deployment of one slow container."""
    probe = {"exec": {"command": ["sh", "-c", "[ -e /ready ]"]}, "periodSeconds": 1}
    container = {
        "name": "main",
        "image": f"{cluster.world.base.host}/counter:latest",
        "command": ["sh", "-c", WARM_UP % rounds],
        "startupProbe": probe | {"failureThreshold": 300},
        "readinessProbe": probe,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name, SNAP: "true"}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [container | spec]},
            },
        },
    }


def start_s(pod: dict[str, Any]) -> float | None:
    """Seconds from a pod's creation until it was ready; None: it is not."""
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] == "Ready" and condition["status"] == "True":
            ready = datetime.fromisoformat(condition["lastTransitionTime"])
            created = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
            return (ready - created).total_seconds()
    return None


def was_restored(operated: Operated, pod: dict[str, Any]) -> bool:
    """Whether the pod's node says that its container came from a checkpoint."""
    return any(one["action"] == "restored" for one in operated.outcomes(pod))


def notes(pod: dict[str, Any]) -> dict[str, str]:
    """A pod's annotations."""
    found: dict[str, str] = pod["metadata"].get("annotations", {})
    return found


@contextmanager
def operating(
    cluster: Cluster, name: str, *, agents_env: Mapping[str, str] | None = None, **settings: str
) -> Iterator[Operated]:
    """A control plane with data of its own, and agents on both nodes, told of the cluster.

    ``agents_env`` is added to the agents' environment.
    """
    gateway = cluster.layout.instance.gateway
    port = free_port(gateway)
    env = {"SNAP_HOOK_ADDR": f"{gateway}:{port}", "SNAP_HOOK_HOST": gateway, **settings}
    world = cluster.world
    plane = world.control_plane(name, env)
    plane.start()
    agents: dict[int, Agent] = {}
    try:
        rest = plane.login()
        rest.post("/config/registry/create", {"name": REGISTRY, **world.registry_details()})
        config = base64.b64encode(cluster.layout.kubeconfig.read_bytes()).decode()
        rest.post(
            "/config/clusters/create",
            {
                "name": CLUSTER,
                "registry_name": REGISTRY,
                "auth_type": "kubeconfig",
                "kubeconfig_content": config,
            },
        )
        for number in (1, 2):
            agents[number] = world.agent(number, plane, env=agents_env)
            agents[number].enrol(rest)
            agents[number].start()
        operated = Operated(cluster, plane, rest, agents)
        operated.wait(lambda: are_prepared(cluster, 2), "prepared nodes")
        yield operated
    finally:
        for agent in agents.values():
            agent.stop()
        plane.stop()


def are_prepared(cluster: Cluster, count: int) -> bool:
    """Whether so many nodes say that pods can be restored there, and the RuntimeClass sends pods to them."""
    asked = ("get", "nodes", "-l", "snap.weaversoft.io/runtime=true", "-oname")
    nodes = cluster.kubectl(*asked).split()
    return len(nodes) == count and cluster.exists("runtimeclass", "snap")
