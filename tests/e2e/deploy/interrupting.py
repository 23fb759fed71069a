"""Jobs that are under way while both programs of an installation are replaced: each ends well, once."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, Final

from deploy.devcluster.cluster import Cluster
from deploy.devnode.node import Node
from deploy.devnode.rest import Rest
from deploy.devnode.world import REGISTRY
from tests.e2e.deploy import installations
from tests.e2e.deploy.installations import SETTLE_S, Installation

ROUNDS: Final = 5  # jobs of each container: some are under way whenever a program ends


def check_jobs_go_on(made: Installation, replace: Callable[[], None]) -> None:
    """Checkpoint a pod of each node again and again while ``replace`` exchanges both programs."""
    cluster, rest = made.cluster, made.rest()
    nodes = {"hog1": cluster.node(1), "hog2": cluster.node(2)}
    for name, node in nodes.items():
        cluster.apply(installations.hog(name, cluster, node.name))
    for name in nodes:
        cluster.wait_pod(name)
        cluster.wait(partial(_is_filled, cluster, name), f"the memory of {name}")
    kept = {name: _parts(node) for name, node in nodes.items()}
    agents = set(made.agents().values())
    asked = [(name, _begin(rest, name)) for _ in range(ROUNDS) for name in nodes]
    first = [job for _, job in asked[: len(nodes)]]
    cluster.wait(lambda: all(_job(rest, job)["status"] != "queued" for job in first), "the jobs")
    replace()
    made.wait_joined()
    rest = made.rest()
    ended = [(name, _ended(cluster, rest, job)) for name, job in asked]
    assert {job["status"] for _, job in ended} == {"completed"}, ended
    assert agents.isdisjoint(made.agents().values())
    # else nothing was interrupted
    assert max(_time(job["ended_at"]) for _, job in ended) > _replaced_at(made)
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


def _replaced_at(made: Installation) -> datetime:
    """When the first of the pods that run now was made."""
    which = ("-l", "app.kubernetes.io/component in (agent, api)")
    found = made.cluster.kubectl("-n", made.namespace, "get", "pods", *which, "-ojson")
    pods = json.loads(found)["items"]
    return min(_time(one["metadata"]["creationTimestamp"]) for one in pods)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
