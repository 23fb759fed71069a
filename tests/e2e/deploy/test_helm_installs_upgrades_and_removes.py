"""Installed by Helm on a real cluster: agents join by their tokens, checkpoint, survive an upgrade, leave nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from deploy.devcluster.cluster import Cluster
from deploy.devnode.node import Node
from deploy.devnode.rest import Rest
from deploy.devnode.world import REGISTRY
from deploy.helm import rendering
from tests.e2e.deploy import installations
from tests.e2e.deploy.installations import RESTART, SETTLE_S, Installation

pytestmark = pytest.mark.cluster

NAMESPACE = "snap-test"
ROUNDS = 5  # jobs of each container: some are under way whenever a program ends


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


def test_jobs_go_on_while_both_programs_are_replaced(pushing: Release) -> None:
    cluster, rest = pushing.cluster, pushing.rest()
    pushing.wait_joined()
    nodes = {"hog1": cluster.node(1), "hog2": cluster.node(2)}
    for name, node in nodes.items():
        cluster.apply(_hog(cluster, name, node.name))
    for name in nodes:
        cluster.wait_pod(name)
        cluster.wait(partial(_is_filled, cluster, name), f"the memory of {name}")
    kept = {name: _parts(node) for name, node in nodes.items()}
    agents = set(pushing.agents().values())
    asked = [(name, _begin(rest, name)) for _ in range(ROUNDS) for name in nodes]
    first = [job for _, job in asked[: len(nodes)]]
    cluster.wait(lambda: all(_job(rest, job)["status"] != "queued" for job in first), "the jobs")
    pushing.put("upgrade", "agent.podAnnotations.again=jobs", "api.podAnnotations.again=jobs")
    pushing.wait_joined()
    rest = pushing.rest()
    ended = [(name, _ended(cluster, rest, job)) for name, job in asked]
    assert {job["status"] for _, job in ended} == {"completed"}, ended
    assert agents.isdisjoint(pushing.agents().values())
    # else nothing was interrupted
    assert max(_time(job["ended_at"]) for _, job in ended) > _replaced_at(cluster)
    listed = rest.get("/checkpoint/list")["checkpoints"]
    for name, node in nodes.items():
        mine = {one for owner, job in ended if owner == name for one in job["checkpoint_ids"]}
        assert len(mine) == ROUNDS
        seen = {one["id"]: one for one in listed if one["pod_name"] == name}
        assert seen.keys() == _parts(node) - kept[name] == mine  # all of each, and nothing else
        assert all(one["status"] == "completed" and one["image_digest"] for one in seen.values())
        assert cluster.get("pod", name)["status"]["containerStatuses"][0]["restartCount"] == 0
        last = installations.ticks(cluster, name)[-1]
        cluster.wait(partial(_ticks_beyond, cluster, name, last), f"{name} to go on")
        cluster.delete("pod", name, "default", "--now")


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


def _hog(cluster: Cluster, name: str, node: str) -> dict[str, Any]:
    """A pod with enough memory for a dump and a push that take their time."""
    env = [{"name": "HOG_MIB", "value": "256"}, {"name": "HOG_HZ", "value": "10"}]
    image = f"{cluster.world.base.host}/hog:latest"
    return installations.pod(name, node, {"image": image, "env": env})


def _is_filled(cluster: Cluster, name: str) -> bool:
    return "ready" in cluster.kubectl("logs", name)


def _ticks_beyond(cluster: Cluster, name: str, last: int) -> bool:
    return installations.ticks(cluster, name)[-1] > last


def _parts(node: Node) -> set[str]:
    """The checkpoints on a node, finished or not."""
    return {path.name for path in node.host_path("/var/lib/snap/checkpoints").iterdir()}


def _begin(rest: Rest, name: str) -> str:
    """Ask for a checkpoint of a pod and its push; the job."""
    path = "/checkpoint/kubelet/checkpoint-and-push?wait=false"
    asked = {"pod_name": name, "namespace": "default", "registry": REGISTRY}
    return str(rest.post(path, asked)["job_id"])


def _job(rest: Rest, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = rest.get(f"/jobs/{job_id}")
    return found


def _ended(cluster: Cluster, rest: Rest, job_id: str) -> dict[str, Any]:
    """The job, once it has ended."""
    what = f"the end of job {job_id}"
    is_over = lambda: _job(rest, job_id)["ended_at"] is not None  # noqa: E731
    cluster.wait(is_over, what, SETTLE_S, lambda: str(_job(rest, job_id)))
    return _job(rest, job_id)


def _replaced_at(cluster: Cluster) -> datetime:
    """When the first of the pods that run now was made."""
    which = ("-l", "app.kubernetes.io/component in (agent, api)")
    pods = json.loads(cluster.kubectl("-n", NAMESPACE, "get", "pods", *which, "-ojson"))["items"]
    return min(_time(one["metadata"]["creationTimestamp"]) for one in pods)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
