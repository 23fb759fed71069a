"""The place where rows are measured: one instance of the real nodes, with what rows need of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc

from bench.case import Case, Unusable
from deploy.devnode import cgroups, processes
from deploy.devnode.node import Node
from deploy.devnode.pods import Pod, Pods, PodSpec
from deploy.devnode.rest import Rest
from deploy.devnode.services import Agent
from deploy.devnode.world import CLUSTER, Deployment, World
from snap_protos.runtime.v1 import api_pb2 as cri

CONTAINER: Final = "app"
PAGE_BYTES: Final = 4096
FILL_S: Final = 180.0
TICKS_PER_S: Final = 200
_DROP_CACHES: Final = Path("/proc/sys/vm/drop_caches")


@dataclass
class Lab:
    """One instance, its programs started when first asked for."""

    world: World
    _deployed: Deployment | None = None
    _count: int = field(default=0)

    @property
    def node(self) -> Node:
        """Where processes are checkpointed."""
        return self.world.node(1)

    @property
    def other(self) -> Node:
        """Where they are restored."""
        return self.world.node(2)

    @property
    def deployed(self) -> Deployment:
        """Control plane and both agents, connected."""
        if self._deployed is None:
            self._deployed = self.world.deploy()
            self._deployed.wait_connected()
        return self._deployed

    @property
    def rest(self) -> Rest:
        """REST as the administrator."""
        return self.deployed.rest

    @property
    def agent(self) -> Agent:
        """The agent of ``node``."""
        return self.deployed.agents[1]

    def fresh_agent(self) -> Agent:
        """The agent of ``node``, just started, so that its counters are of one run."""
        self.agent.stop()
        processes.wait_until(
            lambda: not self._is_connected(self.node), "the agent's good-bye", timeout_s=40
        )
        self.agent.start()
        processes.wait_until(
            lambda: self._is_connected(self.node),
            "the agent",
            timeout_s=40,
            log=self.agent.log,
            alive=lambda: self.agent.is_running,
        )
        self.deployed.wait_connected(1)
        return self.agent

    def _is_connected(self, node: Node) -> bool:
        nodes = self.rest.get(f"/cluster/status/{CLUSTER}").get("nodes", [])
        return any(n["name"] == node.name and n["connected"] for n in nodes)

    @property
    def scratch(self) -> Path:
        """A folder on this machine's disk that goes with the instance."""
        folder = self.world.instance.state / "bench"
        folder.mkdir(exist_ok=True)
        return folder

    def name(self, prefix: str) -> str:
        """A name that was not used before in this instance."""
        self._count += 1
        return f"{prefix}-{self._count}"

    def pods(self, node: Node) -> Pods:
        """The CRI of ``node``."""
        return self.world.pods(node.number)

    def hog_spec(self, case: Case, name: str) -> PodSpec:
        """The process to measure with, the same for everybody."""
        env = {"HOG_MIB": str(case.mib), "HOG_MODE": case.data, "HOG_HZ": str(TICKS_PER_S)}
        return PodSpec(name, "hog", container=CONTAINER, env=env)

    @contextlib.contextmanager
    def hog(self, case: Case) -> Iterator[Pod]:
        """A fresh process of ``case``, its memory filled, for the block; nothing of it waits for the disk."""
        pods = self.pods(self.node)
        pod = pods.run(self.hog_spec(case, self.name("hog")))
        try:
            _wait_filled(pod, case)
            os.sync()
            yield pod
        finally:
            remove(pods, pod)

    def settle(self) -> None:
        """Have the disk idle: nothing that was written before is still on its way to it."""
        os.sync()

    def drop_caches(self) -> None:
        """Have the page cache empty, whatever was in it written first."""
        os.sync()
        _DROP_CACHES.write_text("3")

    def empty_registry(self) -> None:
        """Have the checkpoint registry hold nothing; it keeps no index in memory."""
        shutil.rmtree(self.world.checkpoints.storage / "docker", ignore_errors=True)

    def forget_images(self, node: Node) -> None:
        """Remove every image but the sandbox's from ``node``, and all that its agent has fetched."""
        pods = self.pods(node)
        for image in pods.images.ListImages(cri.ListImagesRequest(), timeout=60).images:
            if not image.pinned:
                spec = cri.ImageSpec(image=image.id)
                pods.images.RemoveImage(cri.RemoveImageRequest(image=spec), timeout=120)
        for entry in node.host_path("/var/lib/snap/cache").glob("*"):
            if entry.is_dir():
                shutil.rmtree(entry)

    def delete_checkpoint(self, checkpoint_id: str) -> None:
        """Remove a checkpoint's parts from its node."""
        self.rest.call("DELETE", f"/checkpoint/{checkpoint_id}?keep_image=true", timeout_s=60)

    def target(self, pod: Pod) -> dict[str, Any]:
        """The body of a request that names ``pod``."""
        spec = pod.spec
        return {
            "pod_name": spec.name,
            "namespace": spec.namespace,
            "container_name": spec.container,
            "node_name": pod.node.name,
            "cluster": CLUSTER,
        }

    def in_cgroup(self, argv: list[str]) -> list[str]:
        """``argv`` so that it is ended with the instance whatever becomes of us."""
        return cgroups.entering(cgroups.make(f"{self.world.instance.cgroup}/bench"), argv)


def remove(pods: Pods, pod: Pod) -> None:
    """Remove a pod, patiently: a node with a full disk queue is slow to unmount."""
    deadline = time.monotonic() + 60
    while True:
        try:
            pods.remove(pod)
        except grpc.RpcError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


def _wait_filled(pod: Pod, case: Case) -> None:
    deadline = time.monotonic() + FILL_S
    while not any(line.startswith("tick 20 ") for line in pod.lines()):
        if time.monotonic() > deadline:
            raise Unusable(f"{case.mib} MiB were not filled within {FILL_S:.0f} s")
        time.sleep(0.1)
