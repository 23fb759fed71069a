"""The checkpoint service on a real node, without the rest of the agent."""

from __future__ import annotations

import itertools
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from agent import errors
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
from agent.runtimes import cri, kubelet, pods, runc
from agent.runtimes.commands import Host
from deploy.devnode.node import Node
from deploy.devnode.pods import Pods
from deploy.devnode.services import FREE_PERCENT
from tests.fakes import kubelet as fakes

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
    engines=("runc", "kubelet", "cri"),
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


class NodeKubelet(fakes.Kubelet):
    """A kubelet in front of the node's real container runtime."""

    def __init__(self, host: Host, runtime: cri.Client) -> None:
        super().__init__(checkpoint=self._ask)
        self._runtime = runtime
        self._ids: dict[tuple[str, str], str] = {}
        self.folder = host.path(kubelet.FOLDER)
        self.folder.mkdir(parents=True, exist_ok=True)

    def knows(self, pod: str, containers: dict[str, str]) -> None:
        """A pod of the namespace default is there."""
        self.pods = {**self.pods, ("default", pod): tuple(containers)}
        self._ids |= {(pod, name): one for name, one in containers.items()}

    async def _ask(self, namespace: str, pod: str, container: str, timeout_s: int) -> str:
        location = f"{kubelet.FOLDER}/{fakes.archive_name(namespace, pod, container)}"
        try:
            await self._runtime.checkpoint_container(self._ids[pod, container], location, timeout_s)
        except errors.SnapError as failure:
            raise RuntimeError(failure.details) from failure
        return location

    @property
    def archives(self) -> list[str]:
        """What lies in its folder."""
        return [path.name for path in self.folder.iterdir()]


@dataclass
class Workbench:
    """A node, its CRI, and a checkpoint service with a data folder of its own."""

    node: Node
    host: Host
    runtime: cri.Client
    shelf: Shelf
    service: CheckpointService
    image_name: Callable[[str], str]
    kubelet: NodeKubelet
    made: list[str] = field(default_factory=list)

    def another_service(self, **changes: Any) -> CheckpointService:
        """What a new agent would start with: nothing but the disk; ``changes`` are to its ports."""
        self.service = CheckpointService(replace(self.service._ports, **changes))
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
        self.kubelet.knows(name, ids)
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
        until(lambda: pod.ticks(container) > before)
        return '"status": "running"' in self.status(pod, container)

    def leftovers(self) -> list[str]:
        """Folders of dumps, and checkpoints that are not whole."""
        dumps = self.host.path(f"{DATA}/dumps")
        whole = {one.checkpoint_id for one in self.shelf.list()}
        places = [p.name for p in self.host.path(f"{DATA}/checkpoints").iterdir()]
        left = [p.name for p in dumps.iterdir()] if dumps.is_dir() else []
        return left + [name for name in places if name not in whole]


def until(condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
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
async def bench(node1: Node, pods1: Pods, tmp_path: Path) -> AsyncIterator[Workbench]:
    """The service on node 1; pods and data are gone afterwards."""
    host = Host(node1.root, tuple(node1.argv([])))
    async with (
        cri.Client(host, cri.find_socket(host)) as runtime,
        fakes.serving(NodeKubelet(host, runtime), tmp_path, node1.name) as served,
    ):
        shelf = Shelf(host, DATA)
        asked = kubelet.Access(served.url, node1.name, lambda: "good", (served.ca_file,))
        ports = Ports(
            host,
            DATA,
            runtime,
            lambda: FACTS,
            shelf,
            kubelet=kubelet.Kubelet(asked),
            free_floor=int(FREE_PERCENT) / 100,
        )
        service = CheckpointService(ports)
        made = Workbench(node1, host, runtime, shelf, service, pods1.image_name, served)
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
