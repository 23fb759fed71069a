"""Our way: the REST API where the row says request → …, the agent's own pusher where it is a part of that."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from dataclasses import dataclass
from typing import Any, Final

from bench import pipeline
from bench.case import Unusable
from bench.lab import Lab
from deploy.devnode.pods import Pod
from deploy.devnode.world import REGISTRY

CALL_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on its node; ``pause_ms`` as the product reports it."""

    id: str
    size_bytes: int
    pause_ms: float


@dataclass(frozen=True, slots=True)
class Pushed:
    """An image at the registry, NAME@DIGEST; ``pushed_bytes`` went over the wire."""

    checkpoint: Checkpoint
    image: str
    pushed_bytes: int

    @property
    def repository(self) -> str:
        """Without the registry's name."""
        return self.image.partition("/")[2].partition("@")[0]


def checkpoint(lab: Lab, pod: Pod) -> Checkpoint:
    """Request → checkpoint on the node, complete."""
    return _made(lab.rest.post("/checkpoint/kubelet/checkpoint", lab.target(pod), timeout_s=CALL_S))


def checkpoint_and_push(lab: Lab, pod: Pod, name: str) -> Pushed:
    """Request → manifest at the registry."""
    wanted = {**lab.target(pod), "registry": REGISTRY, "image_name": name, "tag": "latest"}
    answer = lab.rest.post("/checkpoint/kubelet/checkpoint-and-push", wanted, timeout_s=CALL_S)
    repository = str(answer["image"]).partition("@")[0].rpartition(":")[0]
    job = lab.rest.get(f"/jobs/{answer['job_id']}")
    pushed = int(job["pushes"][0]["pushed_bytes"])
    return Pushed(_made(answer), f"{repository}@{answer['image_digest']}", pushed)


def _made(answer: dict[str, Any]) -> Checkpoint:
    return Checkpoint(
        str(answer["checkpoint_id"]), int(answer["size_bytes"]), float(answer["pause_ms"])
    )


def push(lab: Lab, made: Checkpoint, name: str) -> dict[str, float]:
    """Parts on the node → manifest at the registry, by the agent's pusher in a process of its own.

    Returns:
        ``seconds`` of the push itself, ``pushed_bytes``, ``size_bytes``, ``peak_mib`` of that process.
    """
    registry = lab.world.checkpoints
    wanted = {
        "parts": f"/var/lib/snap/checkpoints/{made.id}",
        "checkpoint_id": made.id,
        "host": registry.host,
        "username": registry.user,
        "password": registry.password,
        "ca_pem": registry.ca.read_text(),
        "repository": name,
        "tag": "latest",
    }
    argv = ["python3", "-m", "bench.inside.push"]
    done = lab.node.run(argv, text_in=json.dumps(wanted), timeout_s=CALL_S, check=False)
    if done.returncode:
        raise Unusable(f"the push failed: {done.stderr[-500:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def check_visible(lab: Lab, name: str) -> None:
    """That the registry shows the manifest of ``name``.

    Raises:
        Unusable: it does not.
    """
    registry = lab.world.checkpoints
    context = ssl.create_default_context(cafile=str(registry.ca))
    login = base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()
    headers = {"Accept": pipeline.MANIFEST, "Authorization": f"Basic {login}"}
    link = http.client.HTTPSConnection(registry.host, timeout=30, context=context)
    try:
        link.request("HEAD", f"/v2/{name}/manifests/latest", headers=headers)
        status = link.getresponse().status
    finally:
        link.close()
    if status != 200:
        raise Unusable(f"the registry answers {status} for {name}")
