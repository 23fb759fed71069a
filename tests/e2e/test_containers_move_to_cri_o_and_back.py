"""A node with CRI-O: prepared by its agent, restored to from containerd, checkpointed, and left again.

Node 1 has containerd 2.1.9, node 2 CRI-O 1.34.0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from agent.runtimes import crio as product
from deploy.devcluster import applications as images
from deploy.devcluster import crio, lifecycle
from deploy.devcluster.cluster import Cluster
from deploy.devcluster.operating import Operated, are_prepared, operating
from deploy.devnode.instance import Instance
from deploy.devnode.world import CLUSTER
from tests.e2e import applications, moving
from tests.e2e.applications import Application
from tests.e2e.moving import Apps

pytestmark = pytest.mark.cluster
BY_NAME = {app.name: app for app in applications.ALL}
REDIS = BY_NAME["redis"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster of these tests' own, for its second runtime."""
    with lifecycle.opened(Instance("crio"), print, {2: "crio-1.34.0"}) as made:
        yield made


@pytest.fixture(scope="module")
def image(cluster: Cluster) -> str:
    """The applications' image, and where their pods live."""
    name = images.publish(cluster.world.base, print)
    moving.namespace(cluster)
    return name


@pytest.fixture(scope="module")
def deployed(cluster: Cluster) -> Iterator[Operated]:
    """A control plane that knows the cluster, an agent in each node; node 2, which was bare, is prepared by its own."""
    make_bare(cluster)
    env = {"SNAP_RUNTIME_RESTART": "pkill -x crio", "SNAP_PREPARE": "auto"}
    with operating(cluster, "crio", agents_env=env) as made:
        cluster.wait(lambda: cluster.is_ready("node2"), "node2")
        yield made


@pytest.fixture
def redis(cluster: Cluster, deployed: Operated, image: str) -> Iterator[Apps]:
    yield Apps(cluster, deployed, REDIS, image)
    moving.remove_pods(cluster)


@pytest.fixture(params=["redis", "node"])
def apps(
    request: pytest.FixtureRequest, cluster: Cluster, deployed: Operated, image: str
) -> Iterator[Apps]:
    app: Application = BY_NAME[request.param]
    yield Apps(cluster, deployed, app, image)
    moving.remove_pods(cluster)


def make_bare(cluster: Cluster) -> None:
    """Have node 2 as one that nobody prepared; CRI-O starts anew."""
    node = cluster.node(2)
    node.host_path(crio.HANDLER).unlink()
    for entry in node.host_path("/opt/snap/bin").iterdir():
        entry.unlink()
    before = node.run(["pgrep", "-o", "-x", "crio"]).stdout
    node.run(["pkill", "-x", "crio"])

    def is_back() -> bool:
        now = node.run(["pgrep", "-o", "-x", "crio"], check=False).stdout
        said = node.run(["crio", "status", "info"], check=False)
        return bool(now) and now != before and said.returncode == 0

    cluster.wait(is_back, "CRI-O on node2")


def prepare(cluster: Cluster, deployed: Operated, *, undo: bool = False) -> None:
    path = f"/cluster/{CLUSTER}/nodes/node2/prepare"
    deployed.rest.post(path, {"undo": undo}, timeout_s=180)
    cluster.wait(lambda: ("runtime" in drivers(deployed)) is not undo, "the agent's report")
    # the kubelet refuses pods that the RuntimeClass sends elsewhere
    cluster.wait(lambda: are_prepared(cluster, 1 if undo else 2), "the node's labels")
    cluster.wait(lambda: cluster.is_ready("node2"), "node2")


def drivers(deployed: Operated) -> list[str]:
    """How node 2 restores."""
    nodes: list[dict[str, Any]] = deployed.rest.get(f"/cluster/status/{CLUSTER}")["nodes"]
    return list(next(n for n in nodes if n["name"] == "node2")["restore_drivers"])


def test_cri_o_gets_the_handler_and_can_be_rid_of_it(redis: Apps) -> None:
    node = redis.cluster.node(2)
    drop_in = node.host_path(product.DROP_IN)
    assert "/opt/snap/bin/snap-runc" in drop_in.read_text()
    address = redis.run("redis", "node2")
    REDIS.state(lambda *words: redis.exec("redis", *words))
    prepare(redis.cluster, redis.deployed, undo=True)
    assert not drop_in.exists()
    assert not node.host_path("/opt/snap/bin/snap-runc").exists()
    prepare(redis.cluster, redis.deployed)
    assert drop_in.exists()
    assert redis.ask("redis", address)  # CRI-O was started anew twice
    assert redis.status("redis")["restartCount"] == 0


def test_an_application_goes_to_cri_o_and_back(apps: Apps) -> None:
    apps.there_and_back()


@pytest.mark.parametrize("engine", ["runc", "cri"])
def test_what_cri_o_started_goes_to_containerd(redis: Apps, engine: str) -> None:
    address = redis.run("redis", "node2")
    REDIS.state(lambda *words: redis.exec("redis", *words))
    before = redis.ask("redis", address)
    address = redis.run("there", "node1", redis.save("redis", "node2", engine=engine))
    said = redis.outcome("there")
    assert said["action"] == "restored", json.dumps(said)
    assert redis.ask("there", address) == before


def test_cri_o_restarts_what_was_restored_when_it_crashes(redis: Apps) -> None:
    redis.run("redis", "node1")
    REDIS.state(lambda *words: redis.exec("redis", *words))
    redis.run("there", "node2", redis.save("redis", "node1"))
    assert redis.outcome("there")["action"] == "restored"
    redis.crash("there")
    assert redis.outcome("there")["code"] == "restarted"
    assert redis.exec("there", "redis-cli", "get", "answer").strip() == ""


def test_more_than_cri_o_gives_by_itself_is_not_restored(redis: Apps) -> None:
    redis.run("redis", "node1", securityContext={})
    checkpoint = redis.save("redis", "node1")
    redis.run("there", "node2", checkpoint, securityContext={})
    said = redis.outcome("there")
    assert (said["action"], said["code"]) == ("cold", "privileges")
    assert "CAP_NET_RAW" in said["reason"]
    assert "securityContext" in said["reason"]


def test_cri_o_is_not_given_images_that_it_does_not_take(redis: Apps) -> None:
    redis.run("redis", "node1")
    redis.refused_driver_image("redis", "node2")
