"""The engine kubelet on real kubelets: what a service account may ask, and what becomes of the archive."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from agent import errors
from agent.checkpoint.service import CheckpointService, Ports
from agent.checkpoint.shelf import Shelf
from agent.formats.jobs import CheckpointId, CheckpointSpec, ContainerTarget, JobId
from agent.node import probe
from agent.runtimes import cri, kubelet
from agent.runtimes.commands import Host
from agent.runtimes.kubelet_errors import Gate
from deploy.devcluster.cluster import Cluster
from deploy.devnode.services import FREE_PERCENT

pytestmark = pytest.mark.cluster
DATA = "/var/lib/snap-kubelet"
ROLE = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: checkpointer}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: checkpointer}
rules: [{apiGroups: [""], resources: [nodes/checkpoint], verbs: [create]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: checkpointer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: checkpointer}
subjects: [{kind: ServiceAccount, name: checkpointer, namespace: default}]
"""


@dataclass
class Asking:
    """A pod of node 1 and how its kubelet is reached by who may."""

    cluster: Cluster
    access: kubelet.Access
    host: Host
    pod: str

    @property
    def archives(self) -> list[str]:
        """What lies in the kubelet's folder."""
        folder = self.host.path(kubelet.FOLDER)
        return [path.name for path in folder.iterdir()] if folder.is_dir() else []

    def ticks(self) -> int:
        """How often it has ticked."""
        return self.cluster.kubectl("logs", self.pod).count("tick ")


@pytest.fixture
def asking(cluster: Cluster) -> Iterator[Asking]:
    """Gone afterwards."""
    cluster.apply(ROLE)
    name = f"counter-{uuid.uuid4().hex[:6]}"
    container = {"name": "app", "image": f"{cluster.world.base.host}/counter:latest"}
    spec = {"nodeName": "node1", "terminationGracePeriodSeconds": 1, "containers": [container]}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    cluster.wait_pod(name)
    token = cluster.kubectl("create", "token", "checkpointer").strip()
    node = cluster.node(1)
    url, ca = f"https://{node.address}:10250", cluster.layout.folder / "ca.crt"
    access = kubelet.Access(url, node.name, lambda: token, (ca,))
    made = Asking(cluster, access, Host(node.root, tuple(node.argv([]))), name)
    made.cluster.wait(lambda: made.ticks() > 2, "its ticks")
    yield made
    cluster.delete("pod", name)
    cluster.delete("clusterrolebinding", "checkpointer")
    for file in made.archives:
        (made.host.path(kubelet.FOLDER) / file).unlink()


async def test_an_archive_is_written_where_it_says(asking: Asking) -> None:
    path = await kubelet.Kubelet(asking.access).checkpoint("default", asking.pod, "app", 30)
    names = kubelet.ArchiveNames("default", asking.pod, "app")
    (found,) = names.begun_between(asking.host.path(kubelet.FOLDER), 0, 1e12)
    assert found == asking.host.path(path)
    assert found.stat().st_size > 0


@pytest.mark.parametrize(
    ("named", "changes", "code", "words"),
    [
        (("default", "nobody", "app"), {}, errors.POD_NOT_FOUND, "no pod default/nobody"),
        (("default", "", "db"), {}, errors.CONTAINER_NOT_FOUND, "no container db"),
        (("default", "", "app"), {"token": lambda: "x"}, "", "does not know the agent's"),
        (("default", "", "app"), {"ca_files": ()}, "", "SNAP_KUBELET_VERIFY"),
    ],
    ids=["pod", "container", "token", "unknown CA"],
)
async def test_refusals_are_those_of_the_contract(
    asking: Asking, named: tuple[str, str, str], changes: dict[str, Any], code: str, words: str
) -> None:
    namespace, pod, container = named
    asked = kubelet.Kubelet(replace(asking.access, **changes))
    with pytest.raises(errors.Refused) as caught:
        await asked.checkpoint(namespace, pod or asking.pod, container, 10)
    assert words in caught.value.message
    assert caught.value.code == (code or errors.CHECKPOINT_REFUSED)
    assert asking.archives == []


async def test_the_probe_finds_whether_it_may_be_asked(asking: Asking) -> None:
    asked = kubelet.Kubelet(asking.access)
    assert (await asked.gate())[0] is Gate.ON
    async with cri.Client(asking.host, cri.find_socket(asking.host)) as runtime:
        found = await probe.take(asking.host, runtime, asked)
    assert found.facts.engines == ("runc", "kubelet", "cri")
    assert found.facts.kubelet_version == "1.37.2"
    weak = asking.cluster.kubectl("create", "token", "default").strip()
    assert (await kubelet.Kubelet(replace(asking.access, token=lambda: weak)).gate())[0] is (
        Gate.FORBIDDEN
    )
    assert asking.archives == []


@pytest.fixture
async def service(asking: Asking) -> AsyncIterator[CheckpointService]:
    """Checkpoints on node 1 with the engine kubelet."""
    host = asking.host
    async with cri.Client(host, cri.find_socket(host)) as runtime:
        asked = kubelet.Kubelet(asking.access)
        known = await probe.take(host, runtime, asked)
        shelf = Shelf(host, DATA)
        floor = int(FREE_PERCENT) / 100
        ports = Ports(
            host, DATA, runtime, lambda: known.facts, shelf, kubelet=asked, free_floor=floor
        )
        yield CheckpointService(ports)


async def test_a_checkpoint_is_taken_over_and_the_pod_goes_on(
    asking: Asking, service: CheckpointService
) -> None:
    target = ContainerTarget(CheckpointId(f"ck-{uuid.uuid4().hex[:8]}"), "app")
    spec = CheckpointSpec("default", asking.pod, (target,), engine="kubelet")
    (result,) = await service.checkpoint(JobId(f"job-{uuid.uuid4().hex[:8]}"), spec, lambda _: None)
    assert (result.engine, result.container_name) == ("kubelet", "app")
    parts = Path(asking.host.path(f"{DATA}/checkpoints/{target.checkpoint_id}"))
    assert (parts / "checkpoint/inventory.img").is_file()
    assert json.loads((parts / "config.dump").read_text())["id"] == result.container_id
    assert asking.archives == []
    before = asking.ticks()
    asking.cluster.wait(lambda: asking.ticks() > before, "its next tick")
