"""The checkpoint service on a real node, without the rest of the agent."""

from __future__ import annotations

import itertools
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from agent.checkpoint.service import CheckpointService, Ports
from agent.checkpoint.shelf import Shelf
from agent.formats.jobs import (
    CheckpointId,
    CheckpointResult,
    CheckpointSpec,
    ContainerTarget,
    JobId,
    Progress,
)
from agent.runtimes import cri, pods, runc
from agent.runtimes.commands import Host
from deploy.devnode.node import Node
from deploy.devnode.pods import Pods

DATA: Final = "/var/lib/snap-checks"
_numbers = itertools.count(1)
FACTS: Any = SimpleNamespace(
    architecture="amd64",
    kernel=os.uname().release,
    criu_version="4.2.1",
    oci_runtime="runc",
    oci_runtime_version="1.3.6",
    runtime="containerd",
    runtime_version="2.1.9",
    cgroup_version="v1",
    cpu_features=("sse2",),
)


@dataclass
class Pod:
    """A pod with one container per entry of ``containers`` (name → id)."""

    name: str
    sandbox_id: str
    containers: dict[str, str]
    logs: dict[str, Path]

    def lines(self, container: str = "app") -> list[str]:
        """What a container wrote, without CRI's own columns."""
        log = self.logs[container]
        text = log.read_text(errors="replace") if log.exists() else ""
        return [line.split(" ", 3)[3] for line in text[: text.rfind("\n") + 1].splitlines()]

    def ticks(self, container: str = "app") -> int:
        """The last ``tick N`` that a container wrote."""
        seen = [line for line in self.lines(container) if line.startswith("tick ")]
        return int(seen[-1].split()[1]) if seen else 0


@dataclass
class Workbench:
    """A node, its CRI, and a checkpoint service with a data folder of its own."""

    node: Node
    host: Host
    runtime: cri.Client
    shelf: Shelf
    service: CheckpointService
    image_name: Callable[[str], str]
    made: list[str] = field(default_factory=list)

    def another_service(self) -> CheckpointService:
        """What a new agent would start with: nothing but the disk."""
        ports = Ports(self.host, DATA, self.runtime, lambda: FACTS, self.shelf)
        self.service = CheckpointService(ports)
        return self.service

    async def run(self, image: str, names: tuple[str, ...] = ("app",), **options: Any) -> Pod:
        """A pod of containers of ``image``; ``options`` are those of ContainerSpec."""
        name = f"pod{next(_numbers)}"
        uid = str(uuid.uuid4())
        spec = pods.SandboxSpec(
            name=name,
            namespace="default",
            uid=uid,
            log_directory=f"/var/log/pods/default_{name}_{uid}",
            cgroup_parent=f"{self.node.pod_cgroup}/pod{uid}",
            annotations=options.pop("pod_annotations", {}),
            host_pid=options.pop("host_pid", False),
        )
        full = self.image_name(image)
        if not await self.runtime.image(full):
            await self.runtime.pull(full)
        sandbox = await self.runtime.run_sandbox(spec)
        self.made.append(sandbox)
        ids = {}
        for one in names:
            made = pods.ContainerSpec(name=one, image=full, log_name=f"{one}.log", **options)
            ids[one] = await self.runtime.create(sandbox, spec, made)
            await self.runtime.start(ids[one])
        logs = {n: self.host.path(f"{spec.log_directory}/{n}.log") for n in names}
        return Pod(name, sandbox, ids, logs)

    async def hog(self, mib: int = 320) -> Pod:
        """A pod that holds memory and ticks."""
        pod = await self.run("hog", env={"HOG_MIB": str(mib)})
        until(lambda: any(line.startswith("ready") for line in pod.lines()))
        return pod

    async def checkpoint(
        self, pod: Pod, job: str = "", **options: Any
    ) -> tuple[CheckpointResult, ...]:
        """Checkpoint all containers of ``pod``; ``options`` are those of CheckpointSpec."""
        said: list[Progress] = []
        spec = spec_of(pod, **options)
        return await self.service.checkpoint(JobId(job or new_job()), spec, said.append)

    def status(self, pod: Pod, container: str = "app") -> str:
        """What the OCI runtime says of a container."""
        root = "/run/containerd/runc/k8s.io"
        argv = ["runc", "--root", root, "state", pod.containers[container]]
        return str(self.node.run(argv).stdout)

    def runs(self, pod: Pod, container: str = "app") -> bool:
        """Whether a container goes on: it ticks within a few seconds."""
        before = pod.ticks(container)
        until(lambda: pod.ticks(container) > before, 10)
        return '"status": "running"' in self.status(pod, container)

    def leftovers(self) -> list[str]:
        """Folders of dumps, and checkpoints that are not whole."""
        dumps = self.host.path(f"{DATA}/dumps")
        whole = {one.checkpoint_id for one in self.shelf.list()}
        places = [p.name for p in self.host.path(f"{DATA}/checkpoints").iterdir()]
        left = [p.name for p in dumps.iterdir()] if dumps.is_dir() else []
        return left + [name for name in places if name not in whole]


def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Return when ``condition`` holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.005)


def new_job() -> str:
    """A job id that was never used."""
    return f"job-{uuid.uuid4().hex[:12]}"


def spec_of(pod: Pod, **options: Any) -> CheckpointSpec:
    """A job's specification for all containers of ``pod``."""
    targets = tuple(
        ContainerTarget(CheckpointId(f"ck-{uuid.uuid4().hex[:12]}"), name)
        for name in options.pop("names", pod.containers)
    )
    return CheckpointSpec("default", options.pop("pod_name", pod.name), targets, **options)


@pytest.fixture
async def bench(node1: Node, pods1: Pods) -> AsyncIterator[Workbench]:
    """The service on node 1; pods and data are gone afterwards."""
    host = Host(node1.root, tuple(node1.argv([])))
    async with cri.Client(host, cri.find_socket(host)) as runtime:
        shelf = Shelf(host, DATA)
        service = CheckpointService(Ports(host, DATA, runtime, lambda: FACTS, shelf))
        made = Workbench(node1, host, runtime, shelf, service, pods1.image_name)
        yield made
        for sandbox in made.made:
            await runtime.stop_sandbox(sandbox)
            await runtime.remove_sandbox(sandbox)
    shutil.rmtree(host.path(DATA))


@pytest.fixture
def oci(bench: Workbench) -> Callable[[Pod], runc.OciRuntime]:
    """The OCI runtime that holds a pod's container."""

    def find(pod: Pod) -> runc.OciRuntime:
        found = runc.find(bench.host, next(iter(pod.containers.values())))
        assert found
        return found

    return find
