"""etcd, API server, controller manager and scheduler of a cluster, on this machine at the bridge's address.

RBAC and Node authorization are on, admission webhooks too, and services' addresses are reached through node 1.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from deploy.devcluster.daemons import Daemon
from deploy.devcluster.layout import API_PORT, DOMAIN, ETCD_PEER_PORT, Layout
from deploy.devcluster.pki import Files
from deploy.devnode import processes
from deploy.devnode.rootfs import NodeParts

READY_S = 180.0


def daemons(layout: Layout, parts: NodeParts, binaries: Path) -> tuple[Daemon, ...]:
    """The control plane's programs in the order to start them."""
    files = Files(layout.folder)
    return (
        _etcd(layout, parts, files),
        _api_server(layout, binaries, files),
        _controller_manager(layout, binaries, files),
        _scheduler(layout, binaries, files),
    )


def start(started: tuple[Daemon, ...], kubectl: list[str]) -> None:
    """Start the programs and wait until the API server is ready.

    Raises:
        processes.NotReady: it did not become so in time; the message ends with its log.
    """
    etcd, api_server, *others = started
    etcd.start()
    api_server.start()
    processes.wait_until(
        lambda: _answers([*kubectl, "get", "--raw", "/readyz"]),
        "the API server",
        timeout_s=READY_S,
        log=api_server.log,
        alive=lambda: api_server.is_running and etcd.is_running,
    )
    for daemon in others:
        daemon.start()


def _answers(argv: list[str]) -> bool:
    return subprocess.run(argv, capture_output=True, check=False, timeout=30).returncode == 0


def _etcd(layout: Layout, parts: NodeParts, files: Files) -> Daemon:
    peers = f"https://{layout.instance.gateway}:{ETCD_PEER_PORT}"
    options: dict[str, object] = {
        "data-dir": layout.folder / "etcd",
        "listen-client-urls": layout.etcd,
        "advertise-client-urls": layout.etcd,
        "listen-peer-urls": peers,
        "initial-advertise-peer-urls": peers,
        "initial-cluster": f"default={peers}",
        "unsafe-no-fsync": "true",  # a cluster that lives for minutes
    }
    for prefix in ("", "peer-"):
        options |= {
            f"{prefix}trusted-ca-file": files.certificate("etcd-ca"),
            f"{prefix}cert-file": files.certificate("etcd"),
            f"{prefix}key-file": files.key("etcd"),
            f"{prefix}client-cert-auth": "true",
        }
    return Daemon(layout, "etcd", (*parts.tool("etcd"), *_flags(options)))


def _api_server(layout: Layout, binaries: Path, files: Files) -> Daemon:
    service_accounts = files.folder / "service-accounts.pub"
    options = {
        "etcd-servers": layout.etcd,
        "etcd-cafile": files.certificate("etcd-ca"),
        "etcd-certfile": files.certificate("etcd-client"),
        "etcd-keyfile": files.key("etcd-client"),
        "bind-address": layout.instance.gateway,
        "advertise-address": layout.instance.gateway,
        "secure-port": API_PORT,
        "service-cluster-ip-range": layout.service_range,
        "tls-cert-file": files.certificate("apiserver"),
        "tls-private-key-file": files.key("apiserver"),
        "client-ca-file": files.certificate("ca"),
        "kubelet-certificate-authority": files.certificate("ca"),
        "kubelet-client-certificate": files.certificate("kubelet-client"),
        "kubelet-client-key": files.key("kubelet-client"),
        "kubelet-preferred-address-types": "InternalIP",
        "requestheader-client-ca-file": files.certificate("front-ca"),
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "proxy-client-cert-file": files.certificate("front-proxy"),
        "proxy-client-key-file": files.key("front-proxy"),
        "service-account-issuer": f"https://kubernetes.default.svc.{DOMAIN}",
        "service-account-key-file": service_accounts,
        "service-account-signing-key-file": files.key("service-accounts"),
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
    }
    return Daemon(layout, "kube-apiserver", _argv(binaries / "kube-apiserver", options))


def _controller_manager(layout: Layout, binaries: Path, files: Files) -> Daemon:
    options = {
        "kubeconfig": files.kubeconfig("controller-manager"),
        "service-account-private-key-file": files.key("service-accounts"),
        "root-ca-file": files.certificate("ca"),
        "cluster-signing-cert-file": files.certificate("ca"),
        "cluster-signing-key-file": files.key("ca"),
        "use-service-account-credentials": "true",
        "leader-elect": "false",
        "secure-port": 0,
    }
    program = binaries / "kube-controller-manager"
    return Daemon(layout, "kube-controller-manager", _argv(program, options))


def _scheduler(layout: Layout, binaries: Path, files: Files) -> Daemon:
    options = {
        "kubeconfig": files.kubeconfig("scheduler"),
        "leader-elect": "false",
        "secure-port": 0,
    }
    return Daemon(layout, "kube-scheduler", _argv(binaries / "kube-scheduler", options))


def _argv(program: Path, options: dict[str, object]) -> tuple[str, ...]:
    return (str(program), *_flags(options))


def _flags(options: dict[str, object]) -> tuple[str, ...]:
    return tuple(f"--{name}={value}" for name, value in options.items())
