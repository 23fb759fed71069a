"""Addresses and files of an instance's cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.devnode.instance import Instance

API_PORT: Final = 6443
ETCD_PORT: Final = 2379
ETCD_PEER_PORT: Final = 2380
DNS_PORT: Final = 1053
DOMAIN: Final = "cluster.local"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things of ``instance``'s cluster are."""

    instance: Instance

    @property
    def folder(self) -> Path:
        """Everything of the control plane: certificates, kubeconfigs, etcd's data, logs."""
        return self.instance.state / "kubernetes"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.folder / "admin.kubeconfig"

    @property
    def api_server(self) -> str:
        """URL of the API server, from this machine, from nodes and from pods."""
        return f"https://{self.instance.gateway}:{API_PORT}"

    @property
    def etcd(self) -> str:
        """URL of etcd."""
        return f"https://{self.instance.gateway}:{ETCD_PORT}"

    @property
    def cgroup(self) -> str:
        """Where the control plane's processes live."""
        return f"{self.instance.cgroup}/kubernetes"

    @property
    def service_range(self) -> str:
        """The addresses of services."""
        return f"10.96.{self.instance.subnet}.0/24"

    @property
    def first_service(self) -> str:
        """The service ``kubernetes``: Kubernetes gives it the range's first address."""
        return f"10.96.{self.instance.subnet}.1"

    @property
    def dns_service(self) -> str:
        """The service ``kube-dns``."""
        return f"10.96.{self.instance.subnet}.10"
