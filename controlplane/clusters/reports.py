"""What is known of nodes where no agent of ours speaks over the link: their reports, and their keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlite_utils import Database

from controlplane.errors import CLUSTER_NOT_FOUND, NODE_NOT_FOUND, Denied, NotFound
from controlplane.store import agents, clock, clusters, reports
from controlplane.store.database import Store
from controlplane.store.reports import NodeReport

RECENT: Final = timedelta(minutes=10)
_PASSES: Final = {  # what the older DaemonSet sends when all is well
    "crio": ("crio:crio version", "crio:pass"),
    "criu": ("criu:Version:", "criu:pass"),
    "criu_config": ("criu_config:pass",),
}


@dataclass(frozen=True, slots=True)
class ReportedNode:
    """A node by its own report: ``checks`` are (passed, details) by name."""

    name: str
    last_update: str
    is_recent: bool
    checks: Mapping[str, tuple[bool, str]]

    @property
    def ready(self) -> bool:
        """Whether everything passed, not long ago."""
        return self.is_recent and all(passed for passed, _ in self.checks.values())


class NodeReports:
    """Takes nodes' reports and tells of them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def take(
        self,
        token_of: str,
        cluster: str,
        node: str,
        taken_at: str,
        checks: Mapping[str, str],
    ) -> None:
        """Keep a node's report.

        Args:
            token_of: the cluster of the token that it came with.

        Raises:
            Denied: that is another cluster.
        """
        if token_of != cluster:
            raise Denied(f"This token is of cluster {token_of}; it can't report for {cluster}.")
        await self._store.write(lambda db: reports.put(db, cluster, node, taken_at, dict(checks)))

    async def of_cluster(self, cluster: str = "") -> list[ReportedNode]:
        """The nodes of a cluster, or of all, by their reports."""
        found = await self._store.read(lambda db: reports.of_cluster(db, cluster))
        return [_node(report) for report in found]

    async def reset_identity(self, cluster: str, node: str) -> None:
        """Forget the key that a node registered, so that it can join with a new one.

        Raises:
            NotFound: CLUSTER_NOT_FOUND; NODE_NOT_FOUND, no key is registered for it.
        """

        def reset(db: Database) -> None:
            if clusters.get(db, cluster) is None:
                raise NotFound(f"There is no cluster {cluster}.", code=CLUSTER_NOT_FOUND)
            if not agents.reset_identity(db, cluster, node):
                raise NotFound(
                    f"No node {node} of cluster {cluster} has registered a key.",
                    code=NODE_NOT_FOUND,
                )

        await self._store.write(reset)


def _node(report: NodeReport) -> ReportedNode:
    checks = {}
    for name, begins in _PASSES.items():
        said = report.checks.get(name, f"{name}:fail:not_reported")
        checks[name] = (said.startswith(begins), said.partition(":")[2])
    age = datetime.now(UTC) - clock.parse(report.reported_at)
    return ReportedNode(report.node, report.taken_at, age < RECENT, checks)
