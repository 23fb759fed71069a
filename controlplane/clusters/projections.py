"""What stays in memory of the pods and nodes of a cluster: what somebody here reads.

Source: kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1 and …/cluster-resources/node-v1.
"""

from __future__ import annotations

from typing import Final

from controlplane.kube.labels import PREFIX
from controlplane.kube.resources import Object

_METADATA: Final = (
    *("name", "namespace", "uid", "resourceVersion"),
    *("creationTimestamp", "deletionTimestamp", "labels"),
)


def pod(found: Object) -> Object:
    """A pod: who it is, where it is, and how its containers are."""
    spec, status = found.get("spec") or {}, found.get("status") or {}
    conditions = status.get("conditions") or ()
    return {
        "metadata": _metadata(found),
        "spec": {"nodeName": spec.get("nodeName") or ""},
        "status": {
            "phase": status.get("phase") or "",
            "ready": any(
                c.get("type") == "Ready" and c.get("status") == "True" for c in conditions
            ),
            "containers": [
                {
                    "name": c.get("name") or "",
                    "containerID": c.get("containerID") or "",
                    "imageID": c.get("imageID") or "",
                    "state": next(iter(c.get("state") or {"waiting": {}})),
                }
                for c in status.get("containerStatuses") or ()
            ],
        },
    }


def node_of_pod(found: Object) -> str:
    """The node that a pod was given to."""
    return str(found["spec"]["nodeName"])


def node(found: Object) -> Object:
    """A node: its labels, our condition and Kubernetes' own, and whether pods may go there."""
    spec, status = found.get("spec") or {}, found.get("status") or {}
    return {
        "metadata": _metadata(found),
        "spec": {
            "unschedulable": bool(spec.get("unschedulable")),
            "taints": spec.get("taints") or [],
        },
        "status": {
            "conditions": [
                c for c in status.get("conditions") or () if c.get("type") in ("Ready", "SnapReady")
            ]
        },
    }


def _metadata(found: Object) -> Object:
    metadata = found.get("metadata") or {}
    kept = {name: metadata[name] for name in _METADATA if name in metadata}
    annotations = metadata.get("annotations") or {}
    ours = {name: value for name, value in annotations.items() if name.startswith(PREFIX)}
    return kept | {"annotations": ours} if ours else kept
