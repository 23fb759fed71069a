"""Six real applications are checkpointed on one node and go on in a pod of the other one, there and back.

Node 1 has containerd 2.1.9, node 2 containerd 2.4.2.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from deploy.devcluster import applications as images
from deploy.devcluster import lifecycle
from deploy.devcluster.cluster import Cluster
from deploy.devnode.instance import Instance
from deploy.devnode.world import Deployment
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
def deployed(cluster: Cluster) -> Iterator[Deployment]:
    """A control plane on this machine and an agent in each node, connected, and the RuntimeClass ``snap``."""
    moving.run_class(cluster)
    made = cluster.world.deploy()
    made.wait_connected()
    yield made
    cluster.world.stop_services()


@pytest.fixture(scope="module")
def image(cluster: Cluster) -> Iterator[str]:
    """The applications' image, and where their pods live."""
    name = images.publish(cluster.world.base, print)
    moving.namespace(cluster)
    yield name
    cluster.delete("namespace", NAMESPACE)


@pytest.fixture(params=applications.ALL, ids=lambda app: app.name)
def apps(
    request: pytest.FixtureRequest, cluster: Cluster, deployed: Deployment, image: str
) -> Iterator[Apps]:
    app: Application = request.param
    if app.files:
        kind = {"apiVersion": "v1", "kind": "ConfigMap"}
        metadata = {"name": app.name, "namespace": NAMESPACE}
        cluster.apply({**kind, "metadata": metadata, "data": dict(app.files)})
    yield Apps(cluster, deployed, app, image)
    moving.remove_pods(cluster)


@pytest.fixture
def redis(cluster: Cluster, deployed: Deployment, image: str) -> Iterator[Apps]:
    app = next(one for one in applications.ALL if one.name == "redis")
    yield Apps(cluster, deployed, app, image)
    moving.remove_pods(cluster)


def test_an_application_goes_there_and_back(apps: Apps) -> None:
    name = apps.app.name
    names = (name, f"{name}-there", f"{name}-back")
    address = apps.run(names[0], "node1")
    apps.app.state(lambda *words: apps.exec(names[0], *words))
    before = apps.ask(names[0], address)
    for source, target, node in ((names[0], names[1], "node2"), (names[1], names[2], "node1")):
        last = apps.rounds(source)[-1:]
        checkpoint = apps.save(source, "node1" if node == "node2" else "node2")
        assert apps.ask(source, address) == before  # the original goes on
        address = apps.run(target, node, checkpoint)
        said = apps.outcome(target)
        assert said["action"] == "restored", json.dumps(said)
        assert apps.ask(target, address) == before
        if apps.app.rounds:
            apps.cluster.wait(lambda: len(apps.rounds(target)) > 2, "its log to go on")  # noqa: B023
            assert apps.rounds(target)[0] >= last[0]
        assert apps.status(target)["restartCount"] == 0
        apps.cluster.delete("pod", source, NAMESPACE)
    assert apps.cluster.is_pod_ready(names[2], NAMESPACE)


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
