"""A cluster's Kubernetes API, reached with what is stored about the cluster."""

from __future__ import annotations

from typing import Any

from controlplane.clusters.configs import ClusterConfigs
from controlplane.errors import CLUSTER_CONNECTION_FAILED, Failed
from controlplane.kube import api
from controlplane.kube.api import Access


class ClusterApis:
    """The API servers of the clusters that were set up."""

    def __init__(self, configs: ClusterConfigs) -> None:
        self._configs = configs

    async def access(self, cluster: str) -> Access:
        """How to reach the API server of ``cluster``.

        Raises:
            NotFound: there is no such cluster.
            Failed: CLUSTER_CONNECTION_FAILED, nothing is stored that could reach it.
        """
        row = await self._configs.get(cluster)
        kept = await self._configs.credential(cluster)
        in_cluster = row.auth_type == "in_cluster"
        has_address = bool(row.kube_api_url or (kept and kept.kubeconfig))
        if not in_cluster and (kept is None or not has_address):
            missing = "address" if not has_address else "credential"
            raise Failed(
                f"Cluster {cluster} has no {missing} of its Kubernetes API; store one first.",
                code=CLUSTER_CONNECTION_FAILED,
                details=f"unreachable: no {missing} is stored for cluster {cluster}",
            )
        return Access(
            cluster,
            server=row.kube_api_url,
            verify_ssl=row.verify_ssl,
            token=kept.token if kept else "",
            kubeconfig=kept.kubeconfig if kept else "",
            in_cluster=in_cluster,
        )

    async def check(self, cluster: str) -> str:
        """The API server's version; it answers, and takes the stored credential.

        Raises:
            NotFound: there is no such cluster.
            Failed: CLUSTER_CONNECTION_FAILED.
        """
        return await api.version(await self.access(cluster))

    async def pods(self, cluster: str) -> list[dict[str, Any]]:
        """Every pod of the cluster, as its API server has it; raises as ``check``."""
        return await api.pods(await self.access(cluster))
