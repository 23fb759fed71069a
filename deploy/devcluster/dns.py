"""The names of services: CoreDNS on this machine behind the service ``kube-dns``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from deploy.devcluster.daemons import Daemon
from deploy.devcluster.layout import DNS_PORT, DOMAIN, Layout
from deploy.devcluster.pki import Files

_SETTINGS: Final = """\
.:{port} {{
    bind {address}
    errors
    cache 5
    kubernetes {domain} {{
        kubeconfig {kubeconfig}
    }}
}}
"""


def daemon(layout: Layout, folder: Path) -> Daemon:
    """CoreDNS, whose program is in ``folder``; its settings are written now."""
    settings = layout.folder / "Corefile"
    settings.write_text(
        _SETTINGS.format(
            port=DNS_PORT,
            address=layout.instance.gateway,
            domain=DOMAIN,
            kubeconfig=Files(layout.folder).kubeconfig("dns"),
        )
    )
    return Daemon(layout, "coredns", (str(folder / "coredns"), "-conf", str(settings)))


def manifest(layout: Layout) -> str:
    """The service that nodes give pods as their resolver, and where it leads."""
    ports = [{"name": p.lower(), "protocol": p, "port": DNS_PORT} for p in ("UDP", "TCP")]
    metadata = {"name": "kube-dns", "namespace": "kube-system"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "clusterIP": layout.dns_service,
            "ports": [{**port, "port": 53, "targetPort": DNS_PORT} for port in ports],
        },
    }
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{"addresses": [layout.instance.gateway]}],
    }
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [service, slice_]})
