"""Checkpoints that pods of ``tests.fakes.pods`` may start from, and the cluster they start in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from controlplane.hook.admission import Policy
from controlplane.hook.index import ClusterSeen
from controlplane.hook.nodes import read_node
from controlplane.kube.asking import asks, container_of
from controlplane.kube.workloads import read_pod
from controlplane.store.workloads import Offer
from tests.fakes.pods import DIGEST, new_pod, node

KEY = b"k" * 32
IMAGE_DIGEST = "sha256:" + "cd" * 32
REFERENCE = f"registry.test:5000/snap/c1-apps-web@{IMAGE_DIGEST}"
POLICY = Policy("c1", key=KEY)


def offer(pod: dict[str, Any] | None = None, container: str = "main", **values: Any) -> Offer:
    """The checkpoint of a container of ``pod``."""
    given = pod or new_pod("web-1")
    seen = read_pod(given)
    found = next(c for c in seen.containers if c.name == container)
    workload = replace(seen.workload("c1", found), image_digest=DIGEST)
    spec = given["spec"]
    made = Offer(
        checkpoint_id="01CHECKPOINT",
        workload=workload,
        asks=asks(spec, container_of(spec, container), KEY),
        image="registry.test:5000/snap/c1-apps-web:tag",
        digest=IMAGE_DIGEST,
        namespaces=(workload.namespace,),
        fingerprint_json="{}",
    )
    return replace(made, **values)


def cluster(*nodes: dict[str, Any], has_runtime_class: bool = True, **traits: Any) -> ClusterSeen:
    """A cluster of these nodes, or of two prepared ones."""
    given = nodes or (node("node-1"), node("node-2"))
    return ClusterSeen(has_runtime_class, [read_node(one) for one in given], traits)
