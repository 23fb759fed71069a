"""SNAP installed on a real cluster, by whatever tool: on nodes that nobody prepared, with pods that count."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from deploy.devcluster.cluster import Cluster
from deploy.devnode.rest import Rest
from deploy.devnode.services import FREE_PERCENT
from deploy.devnode.world import REGISTRY
from deploy.images import building

SETTLE_S: Final = 300.0  # of a machine that may be busy with much else
SETTINGS: Final = {
    "SNAP_RUNTIME_RESTART": "pkill -x containerd",  # the node's init starts it
    "SNAP_DISK_FREE_PERCENT": FREE_PERCENT,
}
ADMIN: Final = "snap-admin"
_PREPARED: Final = ("/etc/containerd", "/opt/snap/bin", "/opt/snap/criu", "/usr/local/sbin")
_KINDS: Final = "all,clusterroles,clusterrolebindings,runtimeclasses,mutatingwebhookconfigurations"
Files = dict[str, tuple[int, bytes]]


class Installation:
    """One installation in ``namespace``; ``known_as`` is the cluster's name in its control plane."""

    def __init__(self, cluster: Cluster, namespace: str, known_as: str) -> None:
        self.cluster, self.namespace, self.known_as = cluster, namespace, known_as
        self.before = prepared(cluster)

    def rest(self) -> Rest:
        """The control plane, with the first administrator logged in."""
        secret = self.cluster.get("secret", ADMIN, self.namespace)
        password = base64.b64decode(secret["data"]["admin-password"]).decode()
        service = self.cluster.get("service", "snap-api", self.namespace)
        rest = Rest(f"http://{service['spec']['clusterIP']}:8000")
        # the rules of a service follow its pods a little later
        self.cluster.wait(lambda: rest.answers("/ready"), "the control plane's service", SETTLE_S)
        rest.login("admin", password)
        return rest

    def wait_joined(self) -> None:
        """Wait until both agents are connected and call their nodes ready; then these are prepared too."""
        rest, seen = self.rest(), list[dict[str, Any]]()

        def are_joined() -> bool:
            status, told = rest.call("GET", f"/cluster/status/{self.known_as}")
            nodes = told["nodes"] if status == 200 else []  # 404 until the first one joins
            seen[:] = [one for one in nodes if one["connected"] and one["status"] == "ready"]
            return len(seen) == 2

        self.cluster.wait(
            are_joined,
            "both agents",
            SETTLE_S,
            lambda: self.cluster.kubectl("-n", self.namespace, "describe", "pods"),
        )
        assert all("runtime" in node["restore_drivers"] for node in seen), seen

    def add_registry(self) -> None:
        """Tell the control plane where checkpoint images go."""
        details = self.cluster.world.registry_details()
        self.rest().post("/config/registry/create", {"name": REGISTRY, **details})

    def start_hook(self) -> None:
        """Have a hook registered in the cluster."""
        rest = self.rest()
        rest.post("/snaphook", {"name": "left", "cluster_name": self.known_as})
        rest.post("/snaphook/left/start", {})
        assert self.cluster.exists("mutatingwebhookconfiguration", "snap-left")

    def agents(self) -> dict[str, str]:
        """The id of each node's agent pod."""
        which = ("-l", "app.kubernetes.io/component=agent")
        found = self.cluster.kubectl("-n", self.namespace, "get", "pods", *which, "-ojson")
        pods = [p for p in json.loads(found)["items"] if "deletionTimestamp" not in p["metadata"]]
        return {one["spec"]["nodeName"]: one["metadata"]["uid"] for one in pods}

    def check_a_pod_moves(self) -> None:
        """A pod of node 1 is checkpointed and goes on on node 2, where it was."""
        cluster, rest = self.cluster, self.rest()
        cluster.apply(counter("moved", cluster))
        cluster.wait_pod("moved")
        cluster.wait(lambda: ticks(cluster, "moved")[-1:] > [5], "a few ticks")
        pushed = rest.post(
            "/checkpoint/kubelet/checkpoint-and-push",
            {"pod_name": "moved", "namespace": "default", "registry": REGISTRY},
        )
        assert pushed["node_name"] == "node1"
        last = ticks(cluster, "moved")[-1]
        cluster.delete("pod", "moved", "default", "--now")
        wanted = {"node_name": "node2", "pod_name": "there"}
        path = f"/checkpoint/{pushed['checkpoint_id']}/restore"
        restored = rest.post(path, wanted, timeout_s=SETTLE_S)
        assert (restored["node_name"], restored["driver"]) == ("node2", "runtime")
        cluster.wait(lambda: bool(ticks(cluster, "there")), "its first line", SETTLE_S)
        assert 5 < ticks(cluster, "there")[0] <= last
        cluster.delete("pod", "there", "default", "--now")

    def check_memory_is_brought(self) -> None:
        """A large process goes on on node 2: its agent, in its pod, brings it the memory, every page of it."""
        cluster, rest = self.cluster, self.rest()
        cluster.apply(hog("large", cluster, "node1"))
        cluster.wait_pod("large")
        wanted = checksum(cluster, "large")
        asked = {"pod_name": "large", "namespace": "default", "registry": REGISTRY}
        pushed = rest.post("/checkpoint/kubelet/checkpoint-and-push", asked)
        there = {"node_name": "node2", "pod_name": "large-there"}
        path = f"/checkpoint/{pushed['checkpoint_id']}/restore"
        rest.post(path, there, timeout_s=SETTLE_S)
        assert checksum(cluster, "large-there") == wanted
        [status] = cluster.get("pod", "large-there")["status"]["containerStatuses"]
        container = status["containerID"].rpartition("/")[2]
        log = cluster.node(2).host_path(f"/var/lib/snap/restores/{container}/restore.log")
        assert "uffd" in log.read_text()  # CRIU left it to another
        for name in ("large", "large-there"):
            cluster.delete("pod", name, "default", "--now")


@contextmanager
def bare(cluster: Cluster, namespace: str) -> Iterator[None]:
    """Nodes that nobody prepared, a namespace and a volume for the block; they are as usual afterwards."""
    for number in (1, 2):
        cluster.node(number).make_bare()
    cluster.kubectl("create", "namespace", namespace)
    place = f"/var/lib/{namespace}-volume"
    cluster.node(1).run(["mkdir", "-p", place])
    cluster.apply(_volume(place))
    try:
        yield
    finally:
        cluster.delete("namespace", namespace)
        cluster.delete("persistentvolume", "snap-api")
        for number in (1, 2):
            cluster.node(number).equip()


def images(cluster: Cluster) -> Mapping[str, tuple[str, str]]:
    """Repository and digest of both images by half, in the registry that the nodes trust."""
    registry = cluster.world.base
    found = {}
    for half, layout in building.ready(print).items():
        name, _, digest = layout.push(registry.host, registry.ca).partition("@")
        found[half] = (name, digest)
    return found


def prepared(cluster: Cluster) -> Files:
    """What preparing may change on the nodes."""
    found: Files = {}
    for number in (1, 2):
        node = cluster.node(number)
        for folder in _PREPARED:
            for path in node.host_path(folder).rglob("*"):
                content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
                found[str(path)] = (path.lstat().st_mode, content)
    return found


def check_nothing_is_left(cluster: Cluster, before: Files) -> None:
    """Nothing of ours is in the cluster or on its nodes, whose files are those of ``before``."""
    # what belonged to a removed object goes a little later
    gone = "every object of ours to go"
    cluster.wait(lambda: not _ours(cluster), gone, told=lambda: str(_ours(cluster)))
    nodes = json.loads(cluster.kubectl("get", "nodes", "-ojson"))["items"]
    assert not [name for node in nodes for name in node["metadata"]["labels"] if "snap." in name]
    conditions = {one["type"] for node in nodes for one in node["status"]["conditions"]}
    assert "SnapReady" not in conditions
    assert prepared(cluster) == before


def _ours(cluster: Cluster) -> list[str]:
    found = json.loads(cluster.kubectl("get", _KINDS, "-A", "-ojson"))["items"]
    names = [f"{one['kind']} {one['metadata']['name']}" for one in found]
    return [name for name in names if " snap" in name]


def ticks(cluster: Cluster, name: str) -> list[int]:
    """What a counter's pod has counted to, line by line."""
    lines = cluster.kubectl("logs", name).splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith("tick ")]


def counter(name: str, cluster: Cluster) -> dict[str, Any]:
    """A pod of node 1 that counts."""
    return pod(name, "node1", {"image": f"{cluster.world.base.host}/counter:latest"})


def hog(name: str, cluster: Cluster, node: str) -> dict[str, Any]:
    """A pod with enough memory for a dump, a push and a restore that take their time."""
    env = [{"name": "HOG_MIB", "value": "256"}, {"name": "HOG_HZ", "value": "10"}]
    return pod(name, node, {"image": f"{cluster.world.base.host}/hog:latest", "env": env})


def checksum(cluster: Cluster, name: str) -> str:
    """What a hog says of its memory when it is asked."""
    said: list[str] = []

    def has_said() -> bool:
        lines = cluster.kubectl("logs", name).splitlines()
        said[:] = [line.split()[1] for line in lines if line.startswith("sum ")]
        return bool(said)

    def is_filled() -> bool:
        return any(word in cluster.kubectl("logs", name) for word in ("ready", "tick"))

    cluster.wait(is_filled, f"the memory of {name}", SETTLE_S)
    cluster.kubectl("exec", name, "--", "sh", "-c", "kill -USR1 1")
    cluster.wait(has_said, f"the checksum of {name}", SETTLE_S)
    return said[-1]


def pod(name: str, node: str, container: Mapping[str, object]) -> dict[str, Any]:
    """A pod of one container, ``app``."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "app", **container}],
        },
    }


def _volume(path: str) -> dict[str, Any]:
    on_node1 = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node1"]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "snap-api"},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "",
            "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node1]}]}},
        },
    }
