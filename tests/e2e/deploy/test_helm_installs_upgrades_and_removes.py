"""Installed by Helm on a real cluster: agents join by their tokens, checkpoint, survive an upgrade, leave nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.devcluster.cluster import Cluster
from deploy.helm import rendering
from tests.e2e.deploy import installations
from tests.e2e.deploy.installations import RESTART, Installation

pytestmark = pytest.mark.cluster

NAMESPACE = "snap-test"


class Release(Installation):
    """The chart, installed."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster, NAMESPACE, "main")
        self._sets = [
            f"networkPolicy.nodeCIDRs={{{cluster.world.instance.address(1)}/32}}",
            "agent.prepare=auto",
            f"agent.settings.{'='.join(RESTART)}",
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
        self.helm(verb, "snap", chart, *words, *storage, "--wait", "--timeout", "180s")


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


def test_both_nodes_join_and_helm_agrees(release: Release) -> None:
    release.wait_joined()
    assert "Phase:          Succeeded" in release.helm("test", "snap")


def test_the_agent_may_do_no_more_than_was_promised(release: Release) -> None:
    account = f"--as=system:serviceaccount:{NAMESPACE}:snap-agent"
    may = release.cluster.kubectl(
        "auth", "can-i", "create", "nodes", "--subresource=checkpoint", account
    )
    assert may.strip() == "yes"
    anybody = _rights(release.cluster, "default")
    assert _rights(release.cluster, "snap-agent") - anybody == {"nodes/checkpoint"}


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


def test_nothing_of_it_stays_in_the_cluster_or_on_its_nodes(release: Release) -> None:
    cluster = release.cluster
    assert installations.prepared(cluster) != release.before
    agents = release.agents()
    assert set(agents) == {"node1", "node2"}
    release.helm("uninstall", "snap", "--wait", "--timeout", "180s")
    installations.check_nothing_is_left(cluster, release.before)
    for name, uid in agents.items():  # none of them would have prepared again
        place = cluster.node(int(name[-1])).host_path("/var/lib/snap/prepare/undone")
        assert place.read_text() == uid


def _rights(cluster: Cluster, account: str) -> set[str]:
    """The resources that a service account may do anything with."""
    who = f"--as=system:serviceaccount:{NAMESPACE}:{account}"
    lines = cluster.kubectl("auth", "can-i", "--list", who).splitlines()[1:]
    return {line.split()[0] for line in lines if not line.startswith(" ")}
