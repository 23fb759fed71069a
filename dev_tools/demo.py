"""The main job, shown: three programs are checkpointed on one real node and go on on another.

Everything goes through the REST API and the node's CRI, as it would for a user; nothing is simulated.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final

import grpc
from rich.console import Console

from deploy.devnode import lifecycle
from deploy.devnode.instance import Instance
from deploy.devnode.pods import Pod
from deploy.devnode.rest import Refusal, Rest
from deploy.devnode.world import CLUSTER, REGISTRY, Deployment, World, opened
from dev_tools.following import JobFailed, follow
from dev_tools.workloads import WORKLOADS, NotProved, Workload

HANDLER: Final = "snap"
VARIABLE: Final = "SNAP_DEV_INSTANCE"
RECORD_S: Final = 5.0
ANNOTATION: Final = "snap.weaversoft.io/checkpoint"
FAILURES: Final = (*lifecycle.PROBLEMS, JobFailed, NotProved, Refusal, RuntimeError, OSError)


@dataclass(frozen=True, slots=True)
class Original:
    """A program that runs on node 1, and what must survive."""

    workload: Workload
    pod: Pod
    noted: str


@dataclass(frozen=True, slots=True)
class Shown:
    """One line of the table at the end."""

    name: str
    pause_ms: float
    size_bytes: int
    image: str
    restore_ms: float
    proof: str


def main(argv: Sequence[str]) -> int:
    """Run the demo; 0 and ``demo: ok …``, or 1 and one sentence on what is missing."""
    parser = argparse.ArgumentParser(prog="dev demo", description=__doc__)
    parser.add_argument(
        "--keep", action="store_true", help="leave it running and say how to use it"
    )
    keep: bool = parser.parse_args(argv).keep
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    began = time.monotonic()
    try:
        instance = Instance(os.environ.get(VARIABLE, "dev"))
        with opened(instance, lambda text: console.print(f"  {text}"), keep=keep) as world:
            console.print("[bold]1[/] the control plane here, an agent on each node")
            deployed = world.deploy(restarts=keep)
            shown = _main_job(world, deployed, console)
            _print(shown, console)
            if keep:
                _tell(world, deployed, shown, console)
    except grpc.RpcError as problem:
        return _failed(f"the container runtime says: {_words(problem)}")
    except FAILURES as problem:
        return _failed(str(problem))
    took = time.monotonic() - began
    print(
        f"demo: ok, {len(shown)} programs checkpointed on node1 go on on node2 ({took:.0f} s in all)"
    )
    return 0


def _words(problem: grpc.RpcError) -> str:
    return str(problem.details()) if isinstance(problem, grpc.Call) else str(problem)


def _failed(reason: str) -> int:
    print(f"demo: failed: {reason}", file=sys.stderr)
    return 1


def _main_job(world: World, deployed: Deployment, console: Console) -> list[Shown]:
    console.print("[bold]2[/] three programs on node1")
    with ThreadPoolExecutor(len(WORKLOADS)) as pool:
        originals = list(pool.map(lambda w: _run(world, w), WORKLOADS))
    for original in originals:
        console.print(f"  {original.workload.spec.name:8} {original.noted}")
    deployed.wait_connected()
    rest = deployed.rest
    console.print("[bold]3[/] checkpoint them, make images, push them")
    jobs = {original.workload.spec.name: _begin(rest, original) for original in originals}
    ended = asyncio.run(follow(rest, jobs, console))
    console.print("[bold]4[/] new pods on node2, started from the images")
    return [_restore(world, deployed, one, ended[one.workload.spec.name]) for one in originals]


def _run(world: World, workload: Workload) -> Original:
    pods = world.pods(1)
    pod = pods.run(workload.spec)
    return Original(workload, pod, workload.note(pods, pod))


def _begin(rest: Rest, original: Original) -> str:
    spec = original.workload.spec
    wanted = {
        "pod_name": spec.name,
        "namespace": spec.namespace,
        "container_name": spec.container,
        "node_name": original.pod.node.name,
        "cluster": CLUSTER,
        "registry": REGISTRY,
        "image_name": f"{spec.name}-checkpoint",
        "tag": "latest",
    }
    answer = rest.post("/checkpoint/kubelet/checkpoint-and-push?wait=false", wanted)
    return str(answer["job_id"])


def _restore(world: World, deployed: Deployment, original: Original, job: dict[str, Any]) -> Shown:
    """A new pod with the same spec, the handler and the annotation; proved, or NotProved."""
    pushed = job["pushes"][0]
    image = f"{pushed['image'].rpartition(':')[0]}@{pushed['image_digest']}"
    spec = original.workload.spec
    asked = json.dumps({spec.container: image})
    pods = world.pods(2)
    pod = pods.run(replace(spec, handler=HANDLER, annotations={ANNOTATION: asked}))
    restore_ms = pod.timings_ms["create"] + pod.timings_ms["start"]
    _check_restored(deployed, pod)
    proof = original.workload.prove(pods, pod, original.noted)
    checkpoint = deployed.rest.get(f"/checkpoint/{pushed['checkpoint_id']}")
    found = checkpoint.get("checkpoint", checkpoint)
    return Shown(
        spec.name, float(found["pause_ms"]), int(pushed["size_bytes"]), image, restore_ms, proof
    )


def _check_restored(deployed: Deployment, pod: Pod) -> None:
    """The agent's own word on how the container was started, which it writes right after the start."""
    deadline = time.monotonic() + RECORD_S
    while not (
        mine := [o for o in deployed.agents[2].restores() if o["container_id"] == pod.container_id]
    ):
        if time.monotonic() > deadline:
            raise NotProved(f"{pod.spec.name} was started cold: its runtime did not ask the agent")
        time.sleep(0.05)
    if mine[-1]["action"] != "restored":
        raise NotProved(f"{pod.spec.name} was started cold: {mine[-1]['reason']}")


def _print(shown: Sequence[Shown], console: Console) -> None:
    """What was checkpointed, the pause, the image and its digest, the restore's time, the proof."""
    for line in shown:
        figures = (
            f"paused {line.pause_ms:.0f} ms, image {line.size_bytes / 1e6:.2f} MB, "
            f"restored in {line.restore_ms:.0f} ms"
        )
        console.print(f"  [bold]{line.name:8}[/] {figures}")
        console.print(f"           {line.image}", soft_wrap=True)
        console.print(f"           [green]{line.proof}[/]")


def _tell(world: World, deployed: Deployment, shown: Sequence[Shown], console: Console) -> None:
    """Addresses, a login, three commands to try."""
    plane, rest = deployed.control_plane, deployed.rest
    chosen = os.environ.get(VARIABLE)
    dev = f"{VARIABLE}={chosen} ./dev" if chosen else "./dev"
    registry = world.checkpoints
    login = json.dumps({"username": "admin", "password": plane.admin_password})
    lines = (
        f"REST       {plane.url}  (reference: {plane.url}/docs)   user admin, password {plane.admin_password}",
        f"registry   https://{registry.host}  user {registry.user}, password {registry.password}, CA {registry.ca}",
        *(
            f"{node.name}      {node.address}  {dev} node exec {node.number}"
            for node in world.running.nodes
        ),
        "",
        "try:",
        f"  curl -s -X POST -H 'Content-Type: application/json' -d '{login}' {plane.url}/config/user/login",
        f"  curl -s -H 'Authorization: Bearer {rest.token}' {plane.url}/checkpoint/list",
        (
            f"  curl -s -X POST -H 'Authorization: Bearer {rest.token}' -H 'Content-Type: application/json' "
            f'-d \'{{"pod_name": "{shown[0].name}", "namespace": "default", "node_name": "node1"}}\' '
            f"{plane.url}/checkpoint/kubelet/checkpoint"
        ),
        "",
        f"it goes on until: {dev} node down; a program that ends or is killed meanwhile comes back",
    )
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
