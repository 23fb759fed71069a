"""What nodes report of themselves over REST, where no agent of ours runs."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from sqlite_utils import Database

from controlplane.store import clock


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One node's last report; ``checks`` as they were sent, ``<check>:<result>[:<detail>]``."""

    cluster: str
    node: str
    taken_at: str
    reported_at: str
    checks: dict[str, str]


def put(db: Database, cluster: str, node: str, taken_at: str, checks: dict[str, str]) -> None:
    """Keep a report, in place of the node's last one."""
    db.execute(
        "INSERT INTO node_reports (cluster, node, taken_at, reported_at, checks_json) "
        "VALUES (?, ?, ?, ?, ?) ON CONFLICT (cluster, node) DO UPDATE SET "
        "taken_at = excluded.taken_at, reported_at = excluded.reported_at, "
        "checks_json = excluded.checks_json",
        [cluster, node, taken_at, clock.now(), msgspec.json.encode(checks).decode()],
    )


def of_cluster(db: Database, cluster: str) -> list[NodeReport]:
    """The reports of a cluster's nodes, or of all clusters'; by name."""
    rows = db.execute(
        "SELECT cluster, node, taken_at, reported_at, checks_json FROM node_reports "
        "WHERE ?1 = '' OR cluster = ?1 ORDER BY cluster, node",
        [cluster],
    )
    return [
        NodeReport(name, node, taken, reported, msgspec.json.decode(checks, type=dict[str, str]))
        for name, node, taken, reported, checks in rows
    ]


def forget(db: Database, cluster: str) -> None:
    """Forget the reports of a cluster."""
    db.execute("DELETE FROM node_reports WHERE cluster = ?", [cluster])
