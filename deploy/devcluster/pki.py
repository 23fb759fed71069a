"""The cluster's certificates and kubeconfigs.

Three authorities, because each speaks for other things: the cluster's own, etcd's (whoever has one of its certificates
reads every secret), and the front proxy's (whoever has one of those may name any user to an aggregated API).

Source: https://kubernetes.io/docs/setup/best-practices/certificates/
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deploy.devcluster.layout import DOMAIN, Layout
from deploy.devnode import tls
from deploy.devnode.instance import NODE_NUMBERS
from deploy.devnode.tls import CLIENT, SERVER, Authority, Leaf

USERS = {  # kubeconfig by user and group of its certificate
    "admin": Leaf("admin", organization="system:masters", usages=(CLIENT,)),
    "controller-manager": Leaf("system:kube-controller-manager", usages=(CLIENT,)),
    "scheduler": Leaf("system:kube-scheduler", usages=(CLIENT,)),
    "proxy": Leaf("system:kube-proxy", usages=(CLIENT,)),
    "dns": Leaf("snap-devcluster-dns", usages=(CLIENT,)),
}
KUBELET_CLIENT = "kube-apiserver-kubelet-client"  # as whom the API server calls kubelets


@dataclass(frozen=True, slots=True)
class Files:
    """Certificates and kubeconfigs in a folder, by name."""

    folder: Path

    def certificate(self, name: str) -> Path:
        """The certificate called ``name`` (an authority's too)."""
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        """Its key."""
        return self.folder / f"{name}.key"

    def kubeconfig(self, name: str) -> Path:
        """The kubeconfig of user ``name``."""
        return self.folder / f"{name}.kubeconfig"


def make(layout: Layout) -> Files:
    """Write all of them into the cluster's folder."""
    files = Files(layout.folder)
    files.folder.mkdir(parents=True, exist_ok=True)
    cluster, etcd, front = (Authority(f"snap devcluster {n}") for n in ("CA", "etcd", "front"))
    for name, authority in (("ca", cluster), ("etcd-ca", etcd), ("front-ca", front)):
        files.certificate(name).write_bytes(authority.pem)
    tls.write_key(files.key("ca"), cluster.key_pem)  # the controller manager signs with it
    both = (SERVER, CLIENT)
    gateway = layout.instance.gateway
    _write(files, "etcd", etcd.issue(Leaf("etcd", (gateway,), usages=both)))
    _write(files, "etcd-client", etcd.issue(Leaf("kube-apiserver", usages=(CLIENT,))))
    _write(files, "front-proxy", front.issue(Leaf("front-proxy-client", usages=(CLIENT,))))
    _write(files, "apiserver", cluster.issue(Leaf("kube-apiserver", _api_names(layout))))
    _write(files, "kubelet-client", cluster.issue(Leaf(KUBELET_CLIENT, usages=(CLIENT,))))
    for name, leaf in USERS.items():
        _kubeconfig(layout, files, name, cluster.issue(leaf))
    for number in NODE_NUMBERS:
        node = f"node{number}"
        serving = Leaf(node, (layout.instance.address(number), node))
        _write(files, node, cluster.issue(serving))
        user = Leaf(f"system:node:{node}", organization="system:nodes", usages=(CLIENT,))
        _kubeconfig(layout, files, node, cluster.issue(user))
    _service_account_key(files)
    return files


def _api_names(layout: Layout) -> tuple[str, ...]:
    service = "kubernetes.default.svc"
    return (
        layout.instance.gateway,
        "127.0.0.1",
        layout.first_service,
        "localhost",
        "kubernetes",
        "kubernetes.default",
        service,
        f"{service}.{DOMAIN}",
    )


def _write(files: Files, name: str, issued: tuple[bytes, bytes]) -> None:
    certificate, key = issued
    files.certificate(name).write_bytes(certificate)
    tls.write_key(files.key(name), key)


def _service_account_key(files: Files) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    tls.write_key(files.key("service-accounts"), tls.key_pem(key))
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (files.folder / "service-accounts.pub").write_bytes(public)


def _kubeconfig(layout: Layout, files: Files, name: str, issued: tuple[bytes, bytes]) -> None:
    ca = files.certificate("ca").read_bytes()
    certificate, key = issued
    cluster = {"server": layout.api_server, "certificate-authority-data": _encoded(ca)}
    user = {"client-certificate-data": _encoded(certificate), "client-key-data": _encoded(key)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "devcluster", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "devcluster", "context": {"cluster": "devcluster", "user": name}}],
        "current-context": "devcluster",
    }
    tls.write_key(files.kubeconfig(name), json.dumps(config).encode())  # JSON is YAML


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
