"""``/cluster/*``: how the clusters are, as their agents report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from controlplane.api.calls import Call
from controlplane.api.fields import Name, OptionalName
from controlplane.api.routing import Section
from controlplane.api.services import Node
from controlplane.clusters.following import Followed
from controlplane.clusters.reports import ReportedNode
from controlplane.kube.resources import name_of
from controlplane.store import clock

SECTION: Final = Section("Clusters", "How the clusters are, as their agents report.")


class Ignored(msgspec.Struct):
    """Whatever is sent to an endpoint that does nothing any more."""

    cluster_name: Any = None


class Deprecated(msgspec.Struct, frozen=True):
    """What a deprecated endpoint says."""

    message: str
    success: bool = False


class DeprecatedVerification(msgspec.Struct, frozen=True):
    """What the deprecated verification says."""

    message: str
    details: dict[str, str] = {}
    output: str = ""
    success: bool = False


class NamespaceFigures(msgspec.Struct, frozen=True):
    """What there is in a namespace; ``total_pods`` is null where no API server tells."""

    cluster_name: str
    namespace: str
    total_checkpoints: int
    total_pods: int | None


class ClusterTrouble(msgspec.Struct, frozen=True):
    """Why what a cluster's API server has may be old: it is away, slow, or refuses."""

    cluster_name: str
    details: str


class StatisticsAnswer(msgspec.Struct, frozen=True):
    """Totals over all clusters."""

    total_clusters: int
    active_clusters: int
    total_checkpoints: int
    total_nodes: int
    total_pods: int
    namespaces: list[NamespaceFigures] = []
    kubernetes_troubles: list[ClusterTrouble] = []
    success: bool = True


class ClusterWanted(msgspec.Struct):
    """Which cluster."""

    cluster_name: Name


class NodeAnswer(msgspec.Struct, frozen=True):
    """How a node is."""

    name: str
    status: str
    checkpointing_enabled: bool
    runc_version: str
    last_update: str | None
    connected: bool
    engine: str
    engines: tuple[str, ...]
    restore_drivers: tuple[str, ...]
    criu_version: str
    runtime: str
    runtime_version: str
    oci_runtime: str
    kubelet_version: str
    kernel: str
    architecture: str
    reasons: tuple[str, ...]


class Kubernetes(msgspec.Struct, frozen=True):
    """What a cluster's API server has.

    ``watched``: it is current. Else ``error`` says why not, and since when; the figures are the last known.
    """

    watched: bool
    error: str
    failing_since: str | None
    nodes: int
    pods: int
    nodes_without_agent: list[str]


class ClusterStatus(msgspec.Struct, frozen=True):
    """How a cluster is; ``kubernetes`` is null where no API server can be asked."""

    cluster_name: str
    status: str
    nodes: list[NodeAnswer]
    daemonset_status: str
    last_update: str | None
    kubernetes: Kubernetes | None = None
    success: bool = True


class SummaryWanted(msgspec.Struct):
    """Which cluster; empty for all."""

    cluster_name: OptionalName = ""


class CheckSummary(msgspec.Struct, frozen=True):
    """One thing that a node needs."""

    status: str
    details: str


class NodeSummary(msgspec.Struct, frozen=True):
    """How a node is, as the older server told it."""

    node_name: str
    ready: bool
    last_update: str | None
    is_recent: bool
    checks: dict[str, CheckSummary]


class SummaryCounts(msgspec.Struct, frozen=True):
    """How many nodes are ready."""

    total_nodes: int
    ready_nodes: int
    not_ready_nodes: int
    overall_status: str
    node_details: list[NodeSummary]


class Summary(msgspec.Struct, frozen=True):
    """How the nodes of a cluster are, as the older server told it."""

    cluster_status: SummaryCounts
    message: str
    success: bool = True


@SECTION.route(
    "POST", "/cluster/enable_checkpointing", takes=Ignored, gives=Deprecated, lenient=True
)
async def enable_checkpointing(call: Call, wanted: Ignored) -> Deprecated:  # noqa: ARG001
    """Deprecated: nodes are made ready by their agents."""
    return Deprecated(
        "This endpoint is deprecated. Checkpointing is now handled automatically by the DaemonSet."
    )


@SECTION.route("POST", "/cluster/install_runc", takes=Ignored, gives=Deprecated, lenient=True)
async def install_runc(call: Call, wanted: Ignored) -> Deprecated:  # noqa: ARG001
    """Deprecated: nodes are made ready by their agents."""
    return Deprecated(
        "This endpoint is deprecated. runc installation is now handled automatically by the DaemonSet."
    )


@SECTION.route(
    "POST",
    "/cluster/verify_checkpointing",
    takes=Ignored,
    gives=DeprecatedVerification,
    lenient=True,
)
async def verify_checkpointing(call: Call, wanted: Ignored) -> DeprecatedVerification:  # noqa: ARG001
    """Deprecated: ask GET /cluster/status/{cluster_name}."""
    return DeprecatedVerification(
        "This endpoint is deprecated. Cluster verification is now handled automatically by the DaemonSet."
    )


@SECTION.route("GET", "/cluster/statistics", gives=StatisticsAnswer)
async def statistics(call: Call) -> StatisticsAnswer:
    """Totals over all clusters; a cluster is active when an agent of it reported within a minute."""
    counted = await call.services.statistics()
    return StatisticsAnswer(
        total_clusters=counted.total_clusters,
        active_clusters=counted.active_clusters,
        total_checkpoints=counted.total_checkpoints,
        total_nodes=counted.total_nodes,
        total_pods=counted.total_pods,
        namespaces=[
            NamespaceFigures(one.cluster, one.namespace, one.total_checkpoints, one.total_pods)
            for one in counted.namespaces
        ],
        kubernetes_troubles=[ClusterTrouble(*one) for one in sorted(counted.troubles.items())],
    )


@SECTION.route("GET", "/cluster/status/summary", takes=SummaryWanted, gives=Summary)
async def summary(call: Call, wanted: SummaryWanted) -> Summary:
    """How the nodes are, in the older server's words."""
    nodes = call.services.fleet.nodes(wanted.cluster_name)
    details = [_summary(node) for node in nodes]
    known = {node.node_name for node in details}
    reported = await call.services.node_reports.of_cluster(wanted.cluster_name)
    details += [_reported(node) for node in reported if node.name not in known]
    ready = sum(node.ready for node in details)
    counts = SummaryCounts(
        total_nodes=len(details),
        ready_nodes=ready,
        not_ready_nodes=len(details) - ready,
        overall_status="ready" if details and ready == len(details) else "not_ready",
        node_details=details,
    )
    return Summary(counts, f"Cluster status: {ready}/{len(details)} nodes ready")


@SECTION.route(
    "GET",
    "/cluster/status/{cluster_name}",
    takes=ClusterWanted,
    gives=ClusterStatus,
    errors=("CLUSTER_NOT_FOUND",),
)
async def status(call: Call, wanted: ClusterWanted) -> ClusterStatus:
    """How a cluster and its nodes are.

    ``status`` is healthy (all nodes ready), degraded (some), unhealthy (none) or unknown (no report).
    """
    cluster = await call.services.clusters.get(wanted.cluster_name)
    nodes = [_node(node) for node in call.services.fleet.nodes(cluster.name)]
    return ClusterStatus(
        cluster_name=cluster.name,
        status=_overall(nodes),
        nodes=nodes,
        daemonset_status=_daemonset(nodes),
        last_update=max((n.last_update for n in nodes if n.last_update), default=None),
        kubernetes=_kubernetes(call.services.followed(cluster.name), {n.name for n in nodes}),
    )


def _kubernetes(followed: Followed | None, with_agent: set[str]) -> Kubernetes | None:
    if followed is None:
        return None
    since = min(
        (i.failing_since for i in (followed.pods, followed.nodes) if i.failing_since), default=None
    )
    names = {name_of(node) for node in followed.nodes.copies}
    return Kubernetes(
        watched=followed.trouble == "",
        error=followed.trouble,
        failing_since=clock.stamp(datetime.fromtimestamp(since, UTC)) if since else None,
        nodes=len(names),
        pods=len(followed.pods.copies),
        nodes_without_agent=sorted(names - with_agent),
    )


def _node(node: Node) -> NodeAnswer:
    facts = node.facts
    return NodeAnswer(
        name=node.node,
        status="stale" if node.stale else "ready" if node.status.ready else "not_ready",
        checkpointing_enabled=bool(facts.engines),
        runc_version=facts.runc_version,
        last_update=node.last_seen or None,
        connected=node.connected,
        engine=facts.engines[0] if facts.engines else "",
        engines=facts.engines,
        restore_drivers=facts.restore_drivers,
        criu_version=facts.criu_version,
        runtime=facts.runtime,
        runtime_version=facts.runtime_version,
        oci_runtime=f"{facts.oci_runtime} {facts.oci_runtime_version}".strip(),
        kubelet_version=facts.kubelet_version,
        kernel=facts.kernel,
        architecture=facts.architecture,
        reasons=_reasons(node),
    )


def _reasons(node: Node) -> tuple[str, ...]:
    return tuple(f"{r.message} {r.remedy}".strip() for r in node.status.reasons)


def _overall(nodes: Sequence[NodeAnswer]) -> str:
    reported = [node for node in nodes if node.last_update]
    if not reported:
        return "unknown"
    ready = sum(node.status == "ready" for node in nodes)
    return "healthy" if ready == len(nodes) else "degraded" if ready else "unhealthy"


def _daemonset(nodes: Sequence[NodeAnswer]) -> str:
    if not nodes:
        return "not_deployed"
    return "running" if all(node.connected for node in nodes) else "degraded"


def _reported(node: ReportedNode) -> NodeSummary:
    checks = {
        name: CheckSummary("pass" if passed else "fail", details)
        for name, (passed, details) in node.checks.items()
    }
    return NodeSummary(node.name, node.ready, node.last_update, node.is_recent, checks)


def _summary(node: Node) -> NodeSummary:
    facts, ready = node.facts, node.status.ready
    runtime = f"{facts.runtime} {facts.runtime_version}".strip()
    checks = {
        "crio": CheckSummary("pass" if runtime else "fail", runtime or "unknown"),
        "criu": CheckSummary(
            "pass" if facts.criu_version else "fail", f"Version: {facts.criu_version or 'unknown'}"
        ),
        "criu_config": CheckSummary("pass" if ready else "fail", " ".join(_reasons(node))),
    }
    is_ready = ready and not node.stale
    return NodeSummary(node.node, is_ready, node.last_seen or None, not node.stale, checks)
