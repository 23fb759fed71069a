"""Six real applications are checkpointed on one node and go on in a pod of the other one, there and back.

Node 1 has containerd 2.1.9, node 2 containerd 2.4.2.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from deploy.devcluster import applications as images
from deploy.devcluster import lifecycle
from deploy.devcluster.cluster import Cluster
from deploy.devcluster.operating import Operated, operating
from deploy.devnode.instance import Instance
from tests.e2e import applications, moving
from tests.e2e.applications import Application
from tests.e2e.moving import NAMESPACE, Apps

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster of these tests' own, for its second runtime."""
    with lifecycle.opened(Instance("mixed"), print, {2: "containerd-2.4.2"}) as made:
        yield made


@pytest.fixture(scope="module")
def deployed(cluster: Cluster) -> Iterator[Operated]:
    """A control plane on this machine that knows the cluster, and an agent in each node, which are prepared."""
    with operating(cluster, "moves") as made:
        yield made


@pytest.fixture(scope="module")
def image(cluster: Cluster) -> Iterator[str]:
    """The applications' image, and where their pods live."""
    name = images.publish(cluster.world.base, print)
    moving.namespace(cluster)
    yield name
    cluster.delete("namespace", NAMESPACE)


@pytest.fixture(params=applications.ALL, ids=lambda app: app.name)
def apps(
    request: pytest.FixtureRequest, cluster: Cluster, deployed: Operated, image: str
) -> Iterator[Apps]:
    app: Application = request.param
    if app.files:
        kind = {"apiVersion": "v1", "kind": "ConfigMap"}
        metadata = {"name": app.name, "namespace": NAMESPACE}
        cluster.apply({**kind, "metadata": metadata, "data": dict(app.files)})
    yield Apps(cluster, deployed, app, image)
    moving.remove_pods(cluster)


@pytest.fixture
def redis(cluster: Cluster, deployed: Operated, image: str) -> Iterator[Apps]:
    app = next(one for one in applications.ALL if one.name == "redis")
    yield Apps(cluster, deployed, app, image)
    moving.remove_pods(cluster)


def test_an_application_goes_there_and_back(apps: Apps) -> None:
    last = apps.there_and_back()
    assert apps.cluster.is_pod_ready(last, NAMESPACE)


def test_an_application_that_crashes_after_its_restore_starts_cold(redis: Apps) -> None:
    redis.run("redis", "node1")
    redis.app.state(lambda *words: redis.exec("redis", *words))
    redis.run("there", "node2", redis.save("redis", "node1"))
    assert redis.outcome("there")["action"] == "restored"
    assert redis.exec("there", "redis-cli", "get", "answer").strip() == "42"
    redis.crash("there")
    said = redis.outcome("there")
    assert (said["action"], said["code"]) == ("cold", "restarted"), said
    assert redis.exec("there", "redis-cli", "get", "answer").strip() == ""
    assert redis.status("there")["lastState"]["terminated"]["exitCode"] == 128 + signal.SIGKILL


def test_a_node_whose_runtime_restores_no_images_is_refused_for_that(redis: Apps) -> None:
    address = redis.run("redis", "node1")
    redis.app.state(lambda *words: redis.exec("redis", *words))
    before = redis.ask("redis", address)
    path = redis.refused_driver_image("redis", "node2")
    wanted = {"node_name": "node2", "pod_name": "there"}
    told = redis.deployed.rest.post(path, wanted, timeout_s=120)
    assert (told["node_name"], told["driver"]) == ("node2", "runtime")
    address = moving.wait_address(redis.cluster, "there")
    assert redis.ask("there", address) == before
