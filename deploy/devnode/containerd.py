"""containerd's configuration on a node: the handlers runc and snap, and whom it trusts.

Source: containerd's configuration version 3 (docs/cri/config.md, docs/hosts.md).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from deploy.devnode.instance import Instance

CONFIG: Final = "/etc/containerd/config.toml"
WRAPPER: Final = "/opt/snap/bin/snap-runc"
CA: Final = "etc/snap-devnode-ca.crt"
SERVICE: Final = f"exec containerd --config {CONFIG}"

_CONFIG: Final = """\
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{pause}"
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = "/etc/containerd/certs.d"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "/etc/cni/net.d"
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""
_HANDLER: Final = """\
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.snap]
      runtime_type = "io.containerd.runc.v2"
      pod_annotations = ["snap.weaversoft.io/*"]
      container_annotations = ["snap.weaversoft.io/*"]
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.snap.options]
        BinaryName = "{wrapper}"
"""


def config(instance: Instance, *, handler: bool = True) -> str:
    """The main file, with the handler ``snap`` or as a node has it that nobody prepared."""
    text = _CONFIG.format(pause=f"{instance.base_registry}/pause:latest")
    return text + (_HANDLER.format(wrapper=WRAPPER) if handler else "")


def files(instance: Instance, node: int, ca: Path) -> dict[str, str]:
    """containerd's, CNI's and the trust store's files for ``node`` by path."""
    made = {CONFIG.lstrip("/"): config(instance), **shared_files(instance, node, ca)}
    for registry in (instance.base_registry, instance.checkpoint_registry):
        hosts = f'server = "https://{registry}"\n[host."https://{registry}"]\n  ca = "/{CA}"\n'
        made[f"etc/containerd/certs.d/{registry}/hosts.toml"] = hosts
    return made


def shared_files(instance: Instance, node: int, ca: Path) -> dict[str, str]:
    """What a node with another runtime has too: CNI's settings and the registries' CA."""
    network = json.dumps(_cni(instance.pod_range(node)))
    return {CA: ca.read_text(), "etc/cni/net.d/10-bridge.conflist": network}


def _cni(pods: str) -> dict[str, object]:
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": addresses,
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "devnode", "plugins": [bridge, ports]}
