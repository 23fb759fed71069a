"""Going round: cold, checkpointed by itself, scaled up, changed, scaled up again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

from bench.circle.report import Start
from deploy.devcluster.cluster import Cluster
from deploy.devcluster.operating import Operated, deployment, operating

NAME: Final = "slow"
READY_S: Final = 600.0  # whatever the machine is busy with
_STEPS: Final = {  # condition of a pod → what it ends
    "PodScheduled": "scheduled_s",
    "PodReadyToStartContainers": "sandbox_s",
    "Ready": "ready_s",
}


def go(cluster: Cluster, replicas: int, rounds: int, say: Callable[[str], None]) -> list[Start]:
    """Every start, in the order of the circle."""
    with operating(cluster, "circle") as operated:
        rest = operated.rest
        watcher = {"name": "w", "cluster_name": "dev", "auto_delete_pod": False}
        rest.post("/operator/snapwatcher", watcher)
        rest.post("/snaphook", {"name": "h", "cluster_name": "dev"})
        rest.post("/snaphook/h/start", {})
        try:
            return _round(operated, replicas, rounds, say)
        finally:
            rest.call("DELETE", "/snaphook/h")
            rest.call("DELETE", "/operator/snapwatcher/w")
            cluster.delete("deployments", "--all")


def _round(
    operated: Operated, replicas: int, rounds: int, say: Callable[[str], None]
) -> list[Start]:
    cluster = operated.cluster
    say("the first pod computes")
    operated.deployment(NAME, rounds=rounds)
    pods = operated.wait_ready(NAME, 1, READY_S)
    starts = [_seen(operated, "the first pod", pods[0])]
    operated.wait_checkpoint("w", NAME)
    say(f"scaled to {replicas}")
    starts += _scaled(operated, replicas, "scaled up", pods)
    say("another template")
    cluster.kubectl("scale", f"deployment/{NAME}", "--replicas=1")
    operated.wait_ready(NAME, 1)
    cluster.apply(deployment(cluster, NAME, 1, rounds + 1))
    cluster.kubectl("rollout", "status", f"deployment/{NAME}", "--timeout=10m", timeout_s=READY_S)
    pods = operated.wait_ready(NAME, 1, READY_S)
    starts.append(_seen(operated, "a new template's first pod", pods[0]))
    operated.wait_checkpoint("w", NAME, 2)  # that of the new template is the second
    return starts + _scaled(operated, 2, "the new template, scaled up", pods)


def _scaled(
    operated: Operated, replicas: int, what: str, before: Iterable[dict[str, Any]]
) -> list[Start]:
    known = {pod["metadata"]["uid"] for pod in before}
    operated.cluster.kubectl("scale", f"deployment/{NAME}", f"--replicas={replicas}")
    pods = operated.wait_ready(NAME, replicas, READY_S)
    return [_seen(operated, what, pod) for pod in pods if pod["metadata"]["uid"] not in known]


def _seen(operated: Operated, what: str, pod: dict[str, Any]) -> Start:
    """A pod's start, by its status (whole seconds) and its node's agent."""
    created = _moment(pod["metadata"]["creationTimestamp"])
    taken = {
        _STEPS[c["type"]]: (_moment(c["lastTransitionTime"]) - created).total_seconds()
        for c in pod["status"]["conditions"]
        if c["type"] in _STEPS
    }
    (container,) = pod["status"]["containerStatuses"]
    started = _moment(container["state"]["running"]["startedAt"]) - created
    told = [o for agent in operated.agents.values() for o in agent.restores()]
    mine = [o for o in told if o["pod_uid"] == pod["metadata"]["uid"]]
    outcome = mine[-1] if mine else {}
    return Start(
        what=what,
        node=pod["spec"]["nodeName"],
        restored=outcome.get("action") == "restored",
        started_s=started.total_seconds(),
        prepare_ms=outcome.get("prepare_ms", 0.0),
        restore_ms=outcome.get("restore_ms", 0.0),
        let_go_ms=outcome.get("start_ms", 0.0),
        **taken,
    )


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
