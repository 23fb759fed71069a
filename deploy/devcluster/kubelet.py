"""What makes a devnode a node of the cluster: its kubelet and kube-proxy, with their settings.

Source: kubelet.config.k8s.io/v1beta1, kubeproxy.config.k8s.io/v1alpha1.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from deploy.devcluster.layout import DOMAIN, Layout
from deploy.devcluster.pki import Files
from deploy.devnode.node import Fittings

PROGRAMS: Final = "/opt/kubernetes"
_SETTINGS: Final = "etc/kubernetes"

# A kubelet sets these for the whole machine; here it gets copies to set, and the machine stays as it is.
_TUNABLES: Final = (
    "vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops"
    " kernel/keys/root_maxkeys kernel/keys/root_maxbytes"
)
_KUBELET: Final = """\
exec unshare -m --propagation unchanged /bin/sh -eu -c '
mount --make-private /proc
for name in {tunables}; do
    copy=/run/devcluster/$name
    mkdir -p "${{copy%/*}}"
    cat "/proc/sys/$name" > "$copy"
    mount --bind "$copy" "/proc/sys/$name"
done
until [ -S {socket} ]; do sleep 0.05; done
exec {programs}/kubelet --config /{settings}/kubelet.json --kubeconfig /{settings}/kubelet.kubeconfig \
 --node-ip {address} --hostname-override {node}'"""
_PROXY: Final = f"exec {PROGRAMS}/kube-proxy --config /{_SETTINGS}/proxy.json"


def fittings(layout: Layout, number: int, binaries: Path, socket: str) -> Fittings:
    """The kubelet and kube-proxy of node ``number``, whose runtime answers on ``socket``."""
    made = Files(layout.folder)
    node = f"node{number}"
    files = {
        "ca.crt": made.certificate("ca").read_text(),
        "kubelet.crt": made.certificate(node).read_text(),
        "kubelet.key": made.key(node).read_text(),
        "kubelet.kubeconfig": made.kubeconfig(node).read_text(),
        "proxy.kubeconfig": made.kubeconfig("proxy").read_text(),
        "kubelet.json": json.dumps(_kubelet(layout, socket)),
        "proxy.json": json.dumps(_proxy(node)),
        "resolv.conf": "",  # nothing beyond the cluster has a name here
    }
    start = _KUBELET.format(
        tunables=_TUNABLES,
        socket=socket,
        programs=PROGRAMS,
        settings=_SETTINGS,
        address=layout.instance.address(number),
        node=node,
    )
    return Fittings(
        {f"{_SETTINGS}/{name}": content for name, content in files.items()},
        {PROGRAMS: binaries},
        {"kubelet": start, "kube-proxy": _PROXY},
    )


def _kubelet(layout: Layout, socket: str) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"/{_SETTINGS}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"/{_SETTINGS}/kubelet.crt",
        "tlsPrivateKeyFile": f"/{_SETTINGS}/kubelet.key",
        "containerRuntimeEndpoint": f"unix://{socket}",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "clusterDNS": [layout.dns_service],
        "clusterDomain": DOMAIN,
        "resolvConf": f"/{_SETTINGS}/resolv.conf",
        "evictionHard": {"memory.available": "100Mi"},  # the machine's disk is not the node's alone
        "imageGCHighThresholdPercent": 100,
    }


def _proxy(node: str) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"/{_SETTINGS}/proxy.kubeconfig"},
        "hostnameOverride": node,
        "mode": "nftables",
        # what does not come from a pod of this node (the API server calling a webhook, say) answers through it
        "detectLocalMode": "BridgeInterface",
        "detectLocal": {"bridgeInterface": "cni0"},
        "conntrack": {"maxPerCore": 0, "min": 0},  # the machine's own settings, not a node's
    }
