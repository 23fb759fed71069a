"""A cluster's Kubernetes API, reached with what is stored about the cluster."""

from __future__ import annotations

from controlplane.clusters.configs import ClusterConfigs
from controlplane.clusters.own import IN_CLUSTER
from controlplane.errors import CLUSTER_CONNECTION_FAILED, Failed
from controlplane.kube.access import Access
from controlplane.kube.client import KubeClient
from controlplane.kube.clients import KubeClients
from controlplane.kube.resources import PODS, Object, trimmed
from controlplane.store.clusters import ClusterRow


class ClusterApis:
    """The API servers of the clusters that were set up."""

    def __init__(self, configs: ClusterConfigs) -> None:
        self._configs = configs
        self._clients = KubeClients(self.access)
        self._reachable: tuple[int, list[str]] | None = None  # as of a revision of the configs

    async def client(self, cluster: str) -> KubeClient:
        """The client of a cluster's API server, kept open; ask again after a failure.

        Raises:
            NotFound: there is no such cluster.
            Failed: CLUSTER_CONNECTION_FAILED, what is stored can't reach it.
        """
        return await self._clients.of(cluster)

    async def close(self) -> None:
        """Close every connection."""
        await self._clients.close()

    async def reachable(self) -> list[str]:
        """The names of the clusters whose API server can be asked with what is stored."""
        revision = self._configs.revision()
        if self._reachable is None or self._reachable[0] != revision:
            rows = await self._configs.everything()
            names = [row.name for row in rows if await self._can_be_asked(row)]
            self._reachable = (revision, names)
        return self._reachable[1]

    async def _can_be_asked(self, row: ClusterRow) -> bool:
        if row.auth_type == IN_CLUSTER:
            return True
        kept = await self._configs.credential(row.name)
        return kept is not None and bool(row.kube_api_url or kept.kubeconfig)

    async def access(self, cluster: str) -> Access:
        """How to reach the API server of ``cluster``.

        Raises:
            NotFound: there is no such cluster.
            Failed: CLUSTER_CONNECTION_FAILED, nothing is stored that could reach it.
        """
        row = await self._configs.get(cluster)
        kept = await self._configs.credential(cluster)
        in_cluster = row.auth_type == IN_CLUSTER
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
            SnapError: CLUSTER_CONNECTION_FAILED; ``details`` begins with ``unauthorized:``,
                ``unreachable:`` or ``certificate:``.
        """
        return await (await self.client(cluster)).version()

    async def pods(self, cluster: str) -> list[Object]:
        """Every pod of the cluster, as its API server has it; raises as ``check``."""
        client = await self.client(cluster)
        return list((await client.list(PODS.path(), keep=trimmed)).items)
