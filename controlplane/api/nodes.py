"""Nodes: what they report without an agent of ours, preparing them, and letting one join anew."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta

from controlplane.api.calls import Call, Done, Reply
from controlplane.api.checkpoints import TARGET_ERRORS
from controlplane.api.decoding import invalid
from controlplane.api.fields import TIME_PATTERN, Line, Name, NodeName
from controlplane.api.jobs import outcome
from controlplane.api.routing import Section
from controlplane.identity import Role
from controlplane.store import clock
from controlplane.store.records import Job

SECTION: Final = Section("Nodes", "What nodes report, and what is done to them.")
CheckName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]*$(?!\n)")]

Timestamp = Annotated[
    str,
    Meta(
        pattern=TIME_PATTERN,
        examples=["2024-01-15T10:30:00Z"],
        extra_json_schema={"format": "date-time"},
    ),
]


class NodeReported(msgspec.Struct):
    """How a node is: each check as ``<check>:<result>[:<detail>]``."""

    example: ClassVar[dict[str, Any]] = {
        "cluster_name": "production-cluster",
        "node_name": "worker-node-1",
        "timestamp": "2024-01-15T10:30:00Z",
        "checks": {
            "crio": "crio:crio version 1.31.2",
            "criu": "criu:Version: 3.19",
            "criu_config": "criu_config:pass",
        },
    }
    cluster_name: Name
    node_name: NodeName
    timestamp: Timestamp
    checks: Annotated[dict[CheckName, Line], Meta(max_length=32)]


class NodeReport(msgspec.Struct, frozen=True):
    """What was kept."""

    node_name: str
    timestamp: str
    checks: dict[str, str]


class ReportTaken(msgspec.Struct, frozen=True):
    """A report was kept."""

    message: str
    node_status: NodeReport
    success: bool = True


class PrepareRequest(msgspec.Struct):
    """Which node; ``undo`` takes back what preparing did."""

    node: NodeName
    undo: bool = False
    wait: bool = True


class PrepareInCluster(PrepareRequest):
    """Which node of which cluster."""

    cluster: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$(?!\n)")] = ""


class NodeWanted(msgspec.Struct):
    """Which node of which cluster."""

    cluster: Name
    node: NodeName


@SECTION.route(
    "POST",
    "/cluster/status/report",
    takes=NodeReported,
    gives=ReportTaken,
    needs=None,
    by_agents=True,
    errors=("AUTHENTICATION_FAILED", "PERMISSION_DENIED"),
)
async def report_status(call: Call, wanted: NodeReported) -> ReportTaken:
    """Report how a node is, with the token of its cluster's agents."""
    try:
        taken_at = clock.parse(wanted.timestamp)
    except ValueError:
        taken_at = None
    if taken_at is None or taken_at.tzinfo is None:
        raise invalid("Field `timestamp` must be RFC 3339, such as 2024-01-15T10:30:00Z.")
    await call.services.node_reports.take(
        call.agent_of, wanted.cluster_name, wanted.node_name, wanted.timestamp, wanted.checks
    )
    kept = NodeReport(wanted.node_name, wanted.timestamp, wanted.checks)
    return ReportTaken(f"Status reported for node {wanted.node_name}", kept)


@SECTION.route(
    "POST",
    "/cluster/nodes/{node}/prepare",
    takes=PrepareInCluster,
    gives=Done,
    needs=Role.ADMINISTRATOR,
    query=("wait",),
    accepts=(202,),
    errors=TARGET_ERRORS,
)
async def prepare_node(call: Call, wanted: PrepareInCluster) -> Done | Reply:
    """Prepare a node of the only cluster for restores, or undo that."""
    return await _prepare(call, wanted.cluster, wanted)


@SECTION.route(
    "POST",
    "/cluster/{cluster}/nodes/{node}/prepare",
    takes=PrepareInCluster,
    gives=Done,
    needs=Role.ADMINISTRATOR,
    query=("wait",),
    accepts=(202,),
    errors=TARGET_ERRORS,
)
async def prepare_cluster_node(call: Call, wanted: PrepareInCluster) -> Done | Reply:
    """Prepare a node for restores, or undo that."""
    return await _prepare(call, wanted.cluster, wanted)


@SECTION.route(
    "POST",
    "/cluster/{cluster}/nodes/{node}/reset-identity",
    takes=NodeWanted,
    gives=Done,
    needs=Role.ADMINISTRATOR,
    errors=("CLUSTER_NOT_FOUND", "NODE_NOT_FOUND"),
    audited=True,
)
async def reset_identity(call: Call, wanted: NodeWanted) -> Done:
    """Let a node's next join register a new key, after its disk was lost; a running session goes on."""
    call.subject = f"{wanted.cluster}/{wanted.node}"
    await call.services.node_reports.reset_identity(wanted.cluster, wanted.node)
    return Done(f"Node {wanted.node} of cluster {wanted.cluster} may join with a new key")


async def _prepare(call: Call, cluster: str, wanted: PrepareRequest) -> Done | Reply:
    job = await call.services.placing.prepare(cluster, wanted.node, call.actor, undo=wanted.undo)

    async def answer(_job: Job) -> Done:
        return Done(f"Node {wanted.node} is {'as it was before' if wanted.undo else 'prepared'}")

    return await outcome(call, job, wanted.wait, answer)
