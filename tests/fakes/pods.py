"""Pods and nodes as an API server has them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
DIGEST = "sha256:" + "ab" * 32
HASH = "5d9c7b8f66"


def stamp(moment: datetime) -> str:
    """As Kubernetes writes times."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def new_pod(
    name: str = "", namespace: str = "apps", labels: dict[str, str] | None = None
) -> dict[str, Any]:
    """A pod of the Deployment ``web`` as admission sees it: no status, often no name."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **({"name": name} if name else {}),
            "generateName": f"web-{HASH}-",
            "namespace": namespace,
            "labels": {
                "app": "web",
                "pod-template-hash": HASH,
                "snap.weaversoft.io/snap": "true",
            }
            | (labels or {}),
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": f"web-{HASH}",
                    "uid": "4c5b",
                    "controller": True,
                }
            ],
        },
        "spec": {
            "containers": [
                {
                    "name": "main",
                    "image": "registry.test/web:1",
                    "command": ["/web"],
                    "env": [{"name": "MODE", "value": "fast"}],
                    "volumeMounts": [
                        {"name": "cache", "mountPath": "/cache"},
                        {
                            "name": "kube-api-access-x7k2p",
                            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                            "readOnly": True,
                        },
                    ],
                }
            ],
            "volumes": [
                {"name": "cache", "emptyDir": {}},
                {"name": "kube-api-access-x7k2p", "projected": {"sources": []}},
            ],
        },
    }


def running_pod(
    name: str = "web-1",
    *,
    ready_s: float | None = 60.0,
    node: str = "node-1",
    labels: dict[str, str] | None = None,
) -> dict[str, Any]:
    """A pod of ``web`` that runs; ``ready_s``: for how long it has been ready, None: it is not."""
    pod = new_pod(name, labels=labels)
    pod["metadata"] |= {
        "uid": f"uid-{name}",
        "creationTimestamp": stamp(NOW - timedelta(minutes=2)),
    }
    pod["spec"]["nodeName"] = node
    ready = ready_s is not None
    conditions = [
        {
            "type": "Ready",
            "status": "True" if ready else "False",
            "lastTransitionTime": stamp(NOW - timedelta(seconds=ready_s or 0.0)),
        }
    ]
    pod["status"] = {
        "phase": "Running",
        "conditions": conditions,
        "containerStatuses": [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": f"registry.test/web@{DIGEST}",
                "ready": ready,
                "started": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": stamp(NOW - timedelta(seconds=100))}},
            }
            for container in pod["spec"]["containers"]
        ],
    }
    return pod


def node(name: str, *, prepared: bool = True, ready: bool = True, **spec: Any) -> dict[str, Any]:
    """A node."""
    labels = {"kubernetes.io/hostname": name}
    if prepared:
        labels["snap.weaversoft.io/runtime"] = "true"
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


def review(pod: dict[str, Any], **request: Any) -> dict[str, Any]:
    """An AdmissionReview of a pod that is being created."""
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "operation": "CREATE",
            "namespace": pod["metadata"].get("namespace", ""),
            "object": pod,
            "dryRun": False,
        }
        | request,
    }
