"""Steps that the tests about restoring share: save a container by REST, bring it back in a new pod, read what the
agent says became of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from agent.formats import layout
from deploy.devnode.pods import Mount, Pod, Pods, PodSpec
from deploy.devnode.world import Deployment

# Deletes a file of the image, replaces a folder, makes files, counts; says first what it finds.
SCRIPT = """
cat /etc/os-release; ls /opt; hostname
rm /etc/os-release; rm -r /opt; mkdir /opt; echo mine >/opt/new; mkdir -p /srv; chmod 751 /srv
n=0; while :; do n=$((n + 1)); echo "n $n"; echo $n >/srv/n; sleep 0.1; done
"""
COUNTING = PodSpec(name="counting", image="counter", command=("/bin/sh", "-c", SCRIPT))


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint image by its digest. ``last`` is the highest number that was counted before it."""

    image: str
    last: int

    @property
    def digest_hex(self) -> str:
        return self.image.rpartition(":")[2]


def wait_for(what: Callable[[], object], *, within_s: float = 90.0) -> Any:
    """What ``what`` gives once it is true."""
    deadline = time.monotonic() + within_s
    while not (value := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value


def numbers(pod: Pod) -> list[int]:
    """What the pod has counted, in its log."""
    return [int(line.split()[1]) for line in pod.lines() if line.strip().startswith("n ")]


def save(deployed: Deployment, pod: Pod, name: str, **how: str) -> Saved:
    """Checkpoint the pod's container on node 1 and push it; ``how``: more of the request's body."""
    answer = deployed.rest.post(
        f"/checkpoint/kubelet/checkpoint-and-push?pod_name={pod.spec.name}"
        f"&node_name={pod.node.name}&container_name={pod.spec.container}",
        {
            "namespace": pod.spec.namespace,
            "cluster": "dev",
            "registry": "checkpoints",
            "image_name": name,
            "tag": "latest",
            **how,
        },
    )
    counted = numbers(pod)
    repository = answer["image"].rpartition(":")[0]
    return Saved(f"{repository}@{answer['image_digest']}", counted[-1] if counted else 0)


def restoring(spec: PodSpec, image: str, **changes: Any) -> PodSpec:
    """A pod like ``spec`` that asks for the checkpoint image."""
    named = json.dumps({spec.container: image})
    annotations = {layout.ANNOTATION_CHECKPOINT: named, **changes.pop("annotations", {})}
    return replace(spec, name="restored", handler="snap", annotations=annotations, **changes)


def outcome(deployed: Deployment, pod: Pod) -> dict[str, Any]:
    """What the agent of the pod's node says became of its container."""

    def found() -> dict[str, Any] | None:
        for one in deployed.agents[pod.node.number].restores():
            if one["container_id"] == pod.container_id:
                return one
        return None

    return wait_for(found)  # type: ignore[no-any-return]


def state_files(pod: Pod) -> list[str]:
    """What the wrapper and the agent still keep for the container."""
    folders = [pod.node.host_path(f"/run/snap/{name}") for name in ("state", "requests")]
    return sorted(
        file.name.partition(".")[2]
        for folder in folders
        for file in folder.iterdir()
        if file.name.startswith(pod.container_id)
    )


def volume(
    pods: Pods, uid: str, name: str, container_path: str, plugin: str = "empty-dir"
) -> Mount:
    """A volume of the pod's own as a kubelet lays it out."""
    path = f"/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~{plugin}/{name}"
    pods.node.host_path(path).mkdir(parents=True, exist_ok=True)
    return Mount(path, container_path)
