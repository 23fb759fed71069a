"""Installed by Helm on a real cluster: agents join by their tokens, checkpoint, survive an upgrade, leave nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import pytest

from deploy.devcluster import applications as application_images
from deploy.devcluster.cluster import Cluster
from deploy.devnode.world import REGISTRY
from deploy.helm import rendering
from tests.e2e import applications, moving
from tests.e2e.applications import Application
from tests.e2e.deploy import installations, interrupting, rights
from tests.e2e.deploy.installations import SETTINGS, SETTLE_S, Installation

pytestmark = pytest.mark.cluster

NAMESPACE = "snap-test"
MOVED = [app for app in applications.ALL if app.name in {"postgresql", "jvm"}]


class Release(Installation):
    """The chart, installed."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster, NAMESPACE, "main")
        self._sets = [
            f"networkPolicy.nodeCIDRs={{{cluster.world.instance.address(1)}/32}}",
            "agent.prepare=auto",
            *(f"agent.settings.{name}={value}" for name, value in SETTINGS.items()),
        ]
        for half, (name, digest) in installations.images(cluster).items():
            self._sets += [f"images.{half}.repository={name}", f"images.{half}.digest={digest}"]

    def helm(self, *words: str) -> str:
        """Run Helm as the cluster's administrator."""
        return rendering.helm(
            print, [*words, "-n", NAMESPACE, "--kubeconfig", str(self.cluster.layout.kubeconfig)]
        )

    def put(self, verb: str, *sets: str) -> None:
        """Install or upgrade, and wait until everything runs."""
        words = [word for one in (*self._sets, *sets) for word in ("--set", one)]
        storage = ["--set-string", "api.persistence.storageClass="]
        chart = str(rendering.CHART)
        self.helm(verb, "snap", chart, *words, *storage, "--wait", "--timeout", "400s")


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Release]:
    """Installed once; every trace is gone afterwards."""
    with installations.bare(cluster, NAMESPACE):
        made = Release(cluster)
        made.put("install")
        yield made


@pytest.fixture(scope="module")
def pushing(release: Release) -> Release:
    """The same, with a registry for checkpoint images."""
    release.wait_joined()
    release.add_registry()
    return release


@pytest.fixture(scope="module")
def image(release: Release) -> Iterator[str]:
    """The applications' image, and where their pods live."""
    name = application_images.publish(release.cluster.world.base, print)
    moving.namespace(release.cluster)
    yield name
    release.cluster.delete("namespace", moving.NAMESPACE)


def test_both_nodes_join_and_helm_agrees(release: Release) -> None:
    release.wait_joined()
    assert "Phase:          Succeeded" in release.helm("test", "snap")


@pytest.mark.parametrize("account", ["snap-agent", "snap-api"])
def test_both_accounts_may_do_what_the_papers_say_and_no_more(
    release: Release, account: str
) -> None:
    anybody = _rights(release.cluster, "default")
    assert _rights(release.cluster, account) - anybody == rights.documented(account)


def test_a_pod_is_checkpointed_before_and_after_an_upgrade(release: Release) -> None:
    cluster = release.cluster
    release.wait_joined()
    cluster.apply(installations.counter("counted", cluster))
    cluster.wait_pod("counted")
    wanted = {"pod_name": "counted", "namespace": "default"}
    first = release.rest().post("/checkpoint/kubelet/checkpoint", wanted)
    assert first["node_name"] == "node1"
    release.put("upgrade", "agent.podAnnotations.again=yes", "api.podAnnotations.again=yes")
    release.wait_joined()
    rest = release.rest()
    second = rest.post("/checkpoint/kubelet/checkpoint", wanted)
    known = {one["id"] for one in rest.get("/checkpoint/list")["checkpoints"]}
    assert {first["checkpoint_id"], second["checkpoint_id"]} <= known
    assert cluster.get("pod", "counted")["status"]["containerStatuses"][0]["restartCount"] == 0
    cluster.delete("pod", "counted", "default", "--now")


def test_a_pod_goes_on_on_the_other_node(pushing: Release) -> None:
    pushing.wait_joined()
    pushing.check_a_pod_moves()


def test_an_agent_in_its_pod_brings_memory(pushing: Release) -> None:
    pushing.wait_joined()
    pushing.check_memory_is_brought()


@pytest.mark.parametrize("app", MOVED, ids=lambda app: app.name)
def test_an_application_goes_on_on_the_other_node(
    pushing: Release, image: str, app: Application
) -> None:
    cluster, rest = pushing.cluster, pushing.rest()
    pushing.wait_joined()
    if app.files:
        kind = {"apiVersion": "v1", "kind": "ConfigMap"}
        metadata = {"name": app.name, "namespace": moving.NAMESPACE}
        cluster.apply({**kind, "metadata": metadata, "data": dict(app.files)})
    cluster.apply(applications.pod(app, app.name, image, "node1", {}))
    address = moving.wait_address(cluster, app.name)
    app.state(partial(moving.run_in, cluster, app.name))
    before = app.ask(address, partial(moving.run_in, cluster, app.name))
    wanted = {"pod_name": app.name, "namespace": moving.NAMESPACE, "registry": REGISTRY}
    saved = rest.post("/checkpoint/kubelet/checkpoint-and-push", wanted)
    assert saved["node_name"] == "node1"
    # the original goes on
    assert app.ask(address, partial(moving.run_in, cluster, app.name)) == before
    there = {"node_name": "node2", "pod_name": f"{app.name}-there"}
    path = f"/checkpoint/{saved['checkpoint_id']}/restore"
    told = rest.post(path, there, timeout_s=SETTLE_S)
    assert (told["node_name"], told["driver"]) == ("node2", "runtime")
    address = moving.wait_address(cluster, told["pod_name"])
    assert app.ask(address, partial(moving.run_in, cluster, told["pod_name"])) == before
    pod = cluster.get("pod", told["pod_name"], moving.NAMESPACE)
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    moving.remove_pods(cluster)


def test_jobs_go_on_while_both_programs_are_replaced(pushing: Release) -> None:
    pushing.wait_joined()
    again = ("agent.podAnnotations.again=jobs", "api.podAnnotations.again=jobs")
    interrupting.check_jobs_go_on(pushing, partial(pushing.put, "upgrade", *again))


def test_nothing_of_it_stays_in_the_cluster_or_on_its_nodes(release: Release) -> None:
    cluster = release.cluster
    assert installations.prepared(cluster) != release.before
    release.start_hook()
    agents = release.agents()
    assert set(agents) == {"node1", "node2"}
    release.helm("uninstall", "snap", "--wait", "--timeout", "400s")
    installations.check_nothing_is_left(cluster, release.before)
    for name, uid in agents.items():  # none of them would have prepared again
        place = cluster.node(int(name[-1])).host_path("/var/lib/snap/prepare/undone")
        assert place.read_text() == uid


def _rights(cluster: Cluster, account: str) -> set[tuple[str, str]]:
    """What a service account may do: (resource and name, verb)."""
    who = f"--as=system:serviceaccount:{NAMESPACE}:{account}"
    table = cluster.kubectl("auth", "can-i", "--list", who, "-n", NAMESPACE)
    rows = re.findall(r"^(\S+) +\[\] +\[(.*?)\] +\[(.*?)\]$", table, re.MULTILINE)
    return {
        (f"{resource} {name}".strip(), verb)
        for resource, names, verbs in rows
        for name in names.split() or [""]
        for verb in verbs.split()
    }
